"""Find and read files of labelled rows with a recipe's columns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tunesmith.data.cleaned import read_cleaned
from tunesmith.data.examples import Columns, Examples, find_reader, path_text
from tunesmith.data.readers.base import Reader
from tunesmith.data.readers.saved import Saved
from tunesmith.data.several import Several
from tunesmith.prompts.template import Template
from tunesmith.recipe.schema import DataSettings
from tunesmith.training.cleaning import changes_of


def resolve_path(path: str | Path, folder: Path) -> str:
    """Find a relative data path beside the recipe first, then in the current folder.

    Args:
        path: as the user wrote it; ~ stands for the home folder.
        folder: the recipe's.
    Returns:
        The path that exists, or `path` with its home folder.
    """
    path = os.path.expanduser(path_text(path))  # leaves names as ~1.csv alone, where Path's own raises an error
    if Path(path).is_absolute():
        return path
    beside = folder / path
    return str(beside) if beside.exists() else path


def read_labelled(
    path: str | Path | Sequence[str],
    data: DataSettings,
    template: Template,
    folder: Path,
    kept: tuple[str, ...] = (),
) -> Examples:
    """Read files with the recipe's columns.

    Args:
        path: one, or several that are read as one.
        data: the recipe's data settings.
        template: of the prompt.
        folder: for relative paths.
        kept: columns besides those of text, label and template, which cleaning does not change.
    Returns:
        The examples.
    Raises:
        DataError: anything wrong with the file, with its line.
    """
    paths = [path] if isinstance(path, str | Path) else path
    readers = [labelled_reader(one, data, folder) for one in paths]
    reader = readers[0] if len(readers) == 1 else Several(readers)
    columns = Columns(data.text, data.label, other_columns(template, data), kept)
    return read_cleaned(reader, columns, data.empty == "drop", changes_of(data))


def labelled_reader(path: str | Path, data: DataSettings, folder: Path) -> Reader:
    """Find what reads a file with the recipe's columns.

    Args:
        path: the file.
        data: the recipe's data settings.
        folder: for relative paths.
    Returns:
        The reader.
    Raises:
        DataError: no such file, or no reader for it.
    """
    path = path_text(path)
    place = path if Saved.reads(path) and not (folder / path).exists() else resolve_path(path, folder)
    return find_reader(place, data.encoding, data.max_characters, data.columns)


def other_columns(template: Template, data: DataSettings) -> tuple[str, ...]:
    """Name the columns that a template reads besides the text.

    Args:
        template: of the prompt.
        data: the recipe's data settings.
    Returns:
        Names of columns.
    """
    return tuple(name for name in template.fields if name not in ("text", data.text))
