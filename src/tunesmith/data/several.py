"""Several files read as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tunesmith.data.readers.base import Reader, Row, steady_rows


class Several(Reader):
    """Goes through one file after the other; rows of the second and later ones say which file they stand in.

    Args:
        readers: of the files, at least one.
    """

    def __init__(self, readers: Sequence[Reader]) -> None:
        first = readers[0]
        super().__init__(first.path, first.encoding, first.max_characters)
        self._readers = readers

    def want(self, columns: Sequence[str]) -> None:
        """Say it to the readers of all."""
        for reader in self._readers:
            reader.want(columns)

    def rows(self) -> Iterator[Row]:
        """Go through the rows of all."""
        yield from self._readers[0].rows()
        for reader in self._readers[1:]:
            for where, values in steady_rows(reader):
                yield f"{reader.path}, {where}", values
