"""Arrow columns straight from buffers: `pyarrow.array` would import pandas where that is installed, for a second."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


def text_column(values: Sequence[str | None], large: bool = False) -> pa.Array:
    """Make a column of texts.

    Args:
        values: the texts; None for a missing one.
        large: with places of 64 bits, for more than 2 GiB.
    Returns:
        An array of `large_string` or `string`.
    Raises:
        UnicodeEncodeError: a text holds half of a surrogate pair.
    Example:
        >>> text_column(["a", None, "bc"]).to_pylist()
        ['a', None, 'bc']
    """
    import pyarrow as pa

    cells = [b"" if value is None else value.encode() for value in values]
    ends = _ends(map(len, cells), np.int64 if large else np.int32)
    kind = pa.large_string() if large else pa.string()
    return pa.Array.from_buffers(kind, len(cells), [_there(values), ends, pa.py_buffer(b"".join(cells))])


def number_column(values: np.ndarray[Any, Any]) -> pa.Array:
    """Make a column of numbers.

    Args:
        values: (rows,), any numeric type; bool, which Arrow packs, is none.
    Returns:
        An array of the same type.
    """
    import pyarrow as pa

    assert values.dtype != np.bool_
    buffer = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, buffer])


def list_column(lengths: Sequence[int | None], items: pa.Array) -> pa.Array:
    """Make a column of lists.

    Args:
        lengths: of each row's list; None for a missing one.
        items: of all lists, one after another.
    Returns:
        An array of lists.
    Example:
        >>> list_column([2, None, 1], text_column(["a", "b", "c"])).to_pylist()
        [['a', 'b'], None, ['c']]
    """
    import pyarrow as pa

    ends = _ends((length or 0 for length in lengths), np.int32)
    return pa.Array.from_buffers(pa.list_(items.type), len(lengths), [_there(lengths), ends], children=[items])


def _there(values: Sequence[object]) -> pa.Buffer | None:
    """A bit per row, 1 where it is not missing; nothing where none is."""
    import pyarrow as pa

    if None not in values:
        return None
    return pa.py_buffer(np.packbits([value is not None for value in values], bitorder="little"))


def _ends(lengths: Iterable[int], kind: type[np.signedinteger[Any]]) -> pa.Buffer:
    """Where each row begins, and where the last one ends."""
    import pyarrow as pa

    return pa.py_buffer(np.array([*accumulate(lengths, initial=0)], dtype=kind))
