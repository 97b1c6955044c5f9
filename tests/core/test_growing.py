import numpy as np
import pytest

from tunesmith.core import growing
from tunesmith.core.errors import CheckpointError
from tunesmith.core.growing import Growing


@pytest.mark.parametrize(("kind", "wanted"), [("B", np.uint8), ("i", np.int32), ("q", np.int64)])
@pytest.mark.parametrize("count", [0, 3, 1000])
def test_numbers_come_back_whether_few_or_many(
    monkeypatch: pytest.MonkeyPatch, kind: str, wanted: type, count: int
) -> None:
    monkeypatch.setattr(growing, "_BLOCK", 64)
    numbers, found = np.random.default_rng(0).integers(0, 200, count).tolist(), Growing(kind)
    for start in range(0, count, 7):
        found.extend(numbers[start : start + 7])
        assert len(found) == min(start + 7, count)
        assert len(found._tail) * found._tail.itemsize < 64, "no more than a block waits in memory"
    whole = found.finish()
    assert whole.dtype == wanted and type(whole) is np.ndarray and whole.tolist() == numbers


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(growing, "_BLOCK", 8)
    monkeypatch.setattr(growing.tempfile, "TemporaryFile", refuse)
    with pytest.raises(CheckpointError, match=r"temporary folder .*: No space left on device.*TMPDIR"):
        Growing("q").extend(range(9))
