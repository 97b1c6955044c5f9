"""What the `datasets` library wrote or publishes: a saved folder, or a name on the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
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
        folder = Path(_parted(path)[0])
        if folder.is_dir():
            others = (reader for reader in components("readers").values() if reader.by_content)
            return not holds_images(folder) and not any(reader.reads(path) for reader in others)
        suffixes = tuple(suffix for reader in components("readers").values() for suffix in reader.suffixes)
        return bool(_HUB_NAME.fullmatch(path)) and not path.lower().endswith(suffixes)

    def rows(self) -> Iterator[Row]:
        """Go through the rows; class labels are given by name, also inside lists and objects.

        Returns:
            ("row 7", values) for each row.
        Raises:
            DataError: not a saved data set, unknown on the hub, or the split is not there.
            MissingDependency: the package `datasets` is not installed.
        """
        table = self._table()
        wanted = self.chosen(table.column_names)
        if wanted is not None:
            table = table.select_columns(wanted)
        features = {key: feature for key, feature in table.features.items() if _holds_labels(feature)}
        for number, values in enumerate(table, 1):
            for key, feature in features.items():
                values[key] = _named(values[key], feature)
            yield f"row {number}", values

    def _table(self) -> Any:
        try:
            import datasets
        except ImportError:
            raise MissingDependency("datasets", "datasets", f"reading {self.path}") from None
        place, split = _parted(self.path)
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


def _parted(path: str) -> tuple[str, str]:
    """Part the name of a split from a folder, which may have a colon in its own, or from a hub name."""
    place, sign, split = path.rpartition(":")
    return (place, split) if sign and not Path(path).is_dir() else (path, "")


def _inner(feature: Any) -> dict[Any, Any]:
    """Return the types of what lies in a list (under None) or in an object (by key)."""
    if isinstance(feature, Mapping):
        return dict(feature)
    one = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    return {} if one is None else {None: one}


def _holds_labels(feature: Any) -> bool:
    return hasattr(feature, "int2str") or any(_holds_labels(one) for one in _inner(feature).values())


def _named(value: Any, feature: Any) -> Any:
    """Put names in the place of the numbers of class labels, at any depth."""
    if hasattr(feature, "int2str"):
        return value if value is None or value < 0 else feature.names[value]
    inner = _inner(feature)
    if isinstance(value, list):
        return [_named(one, inner.get(None)) for one in value]
    if not isinstance(value, Mapping):
        return value
    if None in inner:  # older versions of the library give a list of objects as an object of lists
        return {key: [_named(one, inner[None][key]) for one in ones] for key, ones in value.items()}
    return {key: _named(one, inner.get(key)) for key, one in value.items()}


def _unknown_folder(folder: Path) -> str:
    """Say what a folder that no reader takes may be, and which of its files could be meant."""
    suffixes = tuple(suffix for reader in components("readers").values() for suffix in reader.suffixes)
    files = sorted(item.name for item in folder.iterdir() if item.name.lower().endswith(suffixes))
    inside = f" Did you mean {folder / files[0]}?" if files else ""
    return (
        f"{folder} holds no data that is read from a folder: images, folders of .wav files, images with masks, "
        f"Annotations with boxes, or what the library datasets wrote.{inside}"
    )
