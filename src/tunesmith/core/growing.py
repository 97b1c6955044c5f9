"""Arrays that grow at their end; what is large lies in a temporary file that is mapped, not in memory."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterable
from typing import IO, Any

import numpy as np

from tunesmith.core.errors import CheckpointError

_BLOCK = 4 * 2**20  # bytes that wait in memory


class Growing:
    """Whole numbers, added at the end, read once all are there.

    Args:
        kind: type code of `array.array`: B, i or q for 1, 4 or 8 bytes per number.
    Example:
        >>> numbers = Growing("i")
        >>> numbers.extend([1, 2])
        >>> numbers.finish().tolist()
        [1, 2]
    """

    def __init__(self, kind: str) -> None:
        self._tail, self._written = array(kind), 0
        self._file: IO[bytes] | None = None

    def __len__(self) -> int:
        return self._written + len(self._tail)

    def extend(self, values: Iterable[int]) -> None:
        """Add numbers.

        Args:
            values: in their order.
        Raises:
            CheckpointError: the disk is full.
        """
        self._tail.extend(values)
        if len(self._tail) * self._tail.itemsize >= _BLOCK:
            self._spill()

    def append(self, value: int) -> None:
        """Add a number.

        Args:
            value: of it.
        """
        self.extend((value,))

    def _spill(self) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="tunesmith-")  # noqa: SIM115 - it lives as long as the array
            self._tail.tofile(self._file)
            self._file.flush()
        except OSError as error:
            raise full(error) from None
        self._written += len(self._tail)
        self._tail = array(self._tail.typecode)

    def finish(self) -> np.ndarray[Any, Any]:
        """Return all numbers; nothing may be added any more.

        Returns:
            (count,), in memory where they are few, else mapped from a file that goes with the array.
        """
        kind = np.dtype(self._tail.typecode)
        if self._file is None:
            return np.frombuffer(self._tail, kind) if len(self._tail) else np.zeros(0, kind)
        self._spill()
        return np.memmap(self._file, kind, "r").view(np.ndarray)


def full(error: OSError) -> CheckpointError:
    """Word the error of a temporary file that cannot be written.

    Args:
        error: of the system.
    Returns:
        The error to raise.
    """
    return CheckpointError(
        f"cannot write to the temporary folder {tempfile.gettempdir()}: {error.strerror or error}. Rows and tokens lie "
        "there while a run lasts. Free space, or name another folder with TMPDIR."
    )
