"""What the `datasets` library wrote or publishes: a saved folder, or a name on the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from tunesmith.core.errors import DataError, MissingDependency, unknown
from tunesmith.core.registry import components, register
from tunesmith.data.readers.base import Reader, Row
from tunesmith.data.readers.pictures import holds_images

_WRITTEN = ("dataset_info.json", "dataset_dict.json")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


@register("readers")
class Saved(Reader):
    """A folder that `save_to_disk` wrote, or a hub name `owner/name` or `owner/name:split`."""

    name: ClassVar[str] = "datasets"

    @classmethod
    def reads(cls, path: str) -> bool:
        """Take folders and hub names.

        Args:
            path: as the user wrote it.
        Returns:
            Whether it is one.
        """
        folder = Path(path.partition(":")[0])
        if folder.is_dir():
            others = (reader for reader in components("readers").values() if reader.by_content)
            return not holds_images(folder) and not any(reader.reads(path) for reader in others)
        suffixes = tuple(suffix for reader in components("readers").values() for suffix in reader.suffixes)
        return bool(_HUB_NAME.fullmatch(path)) and not path.lower().endswith(suffixes)

    def rows(self) -> Iterator[Row]:
        """Go through the rows; class labels are given by name.

        Returns:
            ("row 7", values) for each row.
        Raises:
            DataError: not a saved data set, unknown on the hub, or the split is not there.
            MissingDependency: the package `datasets` is not installed.
        """
        table = self._table()
        names = {key: feature.names for key, feature in table.features.items() if hasattr(feature, "int2str")}
        for number, values in enumerate(table, 1):
            for key, labels in names.items():
                if values[key] is not None and values[key] >= 0:
                    values[key] = labels[values[key]]
            yield f"row {number}", values

    def _table(self) -> Any:
        try:
            import datasets
        except ImportError:
            raise MissingDependency("datasets", "datasets", f"reading {self.path}") from None
        place, _, split = self.path.partition(":")
        local = Path(place).is_dir()
        try:
            found = datasets.load_from_disk(place) if local else datasets.load_dataset(place)
        except Exception as error:  # noqa: BLE001 - the library raises many kinds
            if local and not any((Path(place) / name).exists() for name in _WRITTEN):
                raise DataError(_unknown_folder(Path(place))) from None
            kind = "a folder that datasets wrote" if local else "a data set that the hub can give"
            raise DataError(f"{place} is not {kind}: {str(error).splitlines()[0][:300]}") from None
        if not hasattr(found, "keys"):
            return found
        split = split or "train"
        if split not in found:
            raise DataError(f"{place}: {unknown('split', split, found.keys())}. Choose one with {place}:SPLIT.")
        return found[split]


def _unknown_folder(folder: Path) -> str:
    """Say what a folder that no reader takes may be, and which of its files could be meant."""
    suffixes = tuple(suffix for reader in components("readers").values() for suffix in reader.suffixes)
    files = sorted(item.name for item in folder.iterdir() if item.name.lower().endswith(suffixes))
    inside = f" Did you mean {folder / files[0]}?" if files else ""
    return (
        f"{folder} holds no data that is read from a folder: images, folders of .wav files, images with masks, "
        f"Annotations with boxes, or what the library datasets wrote.{inside}"
    )
