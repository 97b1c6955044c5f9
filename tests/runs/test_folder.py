"""A run folder takes its name whole, or the older one stays."""

import os
from pathlib import Path

import pytest

from tunesmith.core.errors import CheckpointError
from tunesmith.runs.folder import staged


@pytest.mark.parametrize("fails", [1, 2, None])
def test_an_older_run_stays_where_the_new_one_cannot_take_its_place(
    fails: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, replace, calls = tmp_path / "run", os.replace, list[int]()
    output.mkdir()
    (output / "file").write_text("older")

    def refused(source: Path, target: Path) -> None:
        calls.append(1)
        if len(calls) == fails:
            raise OSError("no")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refused)
    try:
        with staged(output) as folder:
            (folder / "file").write_text("newer")
    except CheckpointError:
        assert fails is not None
    assert (output / "file").read_text() == ("newer" if fails is None else "older")
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "nothing is left beside it"
