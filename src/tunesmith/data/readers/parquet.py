"""Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from tunesmith.core.errors import DataError
from tunesmith.core.registry import register
from tunesmith.data.readers.base import Reader, Row


@register("readers")
class Parquet(Reader):
    """Apache Parquet, read a few thousand rows at a time, and only the columns that are looked at."""

    name: ClassVar[str] = "parquet"
    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)

    def rows(self) -> Iterator[Row]:
        """Go through the rows.

        Returns:
            ("row 7", values) for each row.
        Raises:
            DataError: not a Parquet file.
        """
        import pyarrow
        from pyarrow import parquet

        try:
            with parquet.ParquetFile(self.path) as file:
                names, number = file.schema_arrow.names, 0
                if len(set(names)) < len(names):
                    twice = next(name for name in names if names.count(name) > 1)
                    raise DataError(f"{self.path}: the column '{twice}' stands twice; rename one.")
                for batch in file.iter_batches(batch_size=4096, columns=self.chosen(names)):
                    for values in batch.to_pylist():
                        number += 1
                        yield f"row {number}", values
        except (pyarrow.ArrowException, OSError) as error:  # the second of pages that are damaged
            raise DataError(f"{self.path} is not a readable Parquet file: {str(error).splitlines()[0]}") from None
