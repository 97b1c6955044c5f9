"""Columns made from buffers equal those that pyarrow makes itself."""

import numpy as np
import pyarrow as pa
import pytest

from tunesmith.core.arrow import list_column, number_column, text_column

TEXTS = ["", "a", None, "größer 漢字 🙂", "b\nc"] * 5


@pytest.mark.parametrize("texts", [[], TEXTS, [text or "x" for text in TEXTS]])
@pytest.mark.parametrize("large", [False, True])
def test_texts(texts: list[str | None], large: bool) -> None:
    found = text_column(texts, large)
    found.validate(full=True)
    assert found.equals(pa.array(texts, pa.large_string() if large else pa.string()))


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64])
def test_numbers(kind: type[np.generic]) -> None:
    values = np.arange(14, dtype=kind)[::2]
    found = number_column(values)
    found.validate(full=True)
    assert found.equals(pa.array(values))


def test_lists() -> None:
    wanted = [["a", "b"], None, [], ["c"]]
    found = list_column([2, None, 0, 1], text_column(["a", "b", "c"]))
    found.validate(full=True)
    assert found.equals(pa.array(wanted, pa.list_(pa.string())))


def test_half_a_surrogate_pair_is_refused_as_pyarrow_does() -> None:
    with pytest.raises(UnicodeEncodeError):
        text_column(["\ud800"])
    with pytest.raises(UnicodeEncodeError):
        pa.array(["\ud800"])
