"""The labelled rows of meta-training, and which of their classes are held out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from tunesmith.core.arrays import Codes
from tunesmith.core.errors import DataError, nearest
from tunesmith.core.files import hash_of
from tunesmith.core.seeds import derived
from tunesmith.data.audit import Hashes, hash_64, text_hashes
from tunesmith.data.examples import Columns, find_reader, read_examples
from tunesmith.data.images import read_images, rotated
from tunesmith.recipe.episodes import CheckedEpisodes
from tunesmith.training.parts import of_types


@dataclass(frozen=True)
class Labelled:
    """Rows with labels.

    Args:
        content: images (rows, channels, height, width), uint8, or texts.
        labels: (rows,), codes.
        names: by code.
        source: where they came from.
        content_hash: of all of it.
        notes: what the user should know.
    """

    content: np.ndarray[Any, Any] | list[str]
    labels: Codes
    names: list[str]
    source: str
    content_hash: str
    notes: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """Word how much there is."""
        return f"{len(self.labels):,} rows of {len(self.names):,} classes"

    def of(self, classes: list[int], source: str) -> Labelled:
        """Take the rows of some classes.

        Args:
            classes: codes.
            source: what to call them.
        Returns:
            They alone, with codes of their own.
        """
        rows = np.flatnonzero(np.isin(self.labels, classes))
        codes = {code: number for number, code in enumerate(classes)}
        labels = np.array([codes[int(code)] for code in self.labels[rows]], np.int64)
        content = self.content[rows] if isinstance(self.content, np.ndarray) else [self.content[row] for row in rows]
        names = [self.names[code] for code in classes]
        return Labelled(content, labels, names, source, self.content_hash)


def read_split(checked: CheckedEpisodes) -> tuple[Labelled, Labelled]:
    """Read the rows and hold classes out.

    Args:
        checked: the recipe.
    Returns:
        Rows to learn from, and rows of other classes; their notes say how many texts or images stand on both sides.
    Raises:
        DataError: a source that cannot be used, patterns that mean no class, or classes in both.
    """
    learned, scored = _split(checked)
    return learned, replace(scored, notes=(*scored.notes, *_on_both_sides(learned, scored)))


def _on_both_sides(learned: Labelled, scored: Labelled) -> tuple[str, ...]:
    """Remark on texts or images of scored classes that also stand under classes that are learned from."""
    both = int(np.isin(_hashes(scored), _hashes(learned)).sum())
    if not both:
        return ()
    what = "images" if isinstance(scored.content, np.ndarray) else "texts"
    said = f"{both:,} of {len(scored.labels):,} {what} that are scored also stand under classes that are learned from"
    return (f"{said}, so scores may flatter. Check their labels, or take them out of one of the two.",)


def _hashes(rows: Labelled) -> Hashes:
    """Hash texts, or images pixel by pixel."""
    if isinstance(rows.content, np.ndarray):
        return np.fromiter((hash_64(image.tobytes()) for image in rows.content), dtype=np.uint64)
    return text_hashes(rows.content)


def _split(checked: CheckedEpisodes) -> tuple[Labelled, Labelled]:
    data = checked.recipe.data
    train = _read(checked, data.train)
    if isinstance(data.test, str) and not data.held_out:
        test = _read(checked, data.test)
        both = sorted(set(train.names) & set(test.names))
        if both:
            raise DataError(
                f"{len(both)} classes stand in {train.source} and in {test.source}, for example '{both[0]}'; episodes "
                "are scored on classes that were not learned from. Take them out of one of the two."
            )
        return _turned(checked, train), _turned(checked, test)
    held = _held(checked, train.names)
    kept = [code for code in range(len(train.names)) if code not in set(held)]
    for left, what in ((kept, "learn from"), (held, "be scored on")):
        if len(left) < 2:
            raise DataError(
                f"{'data.held_out' if data.held_out else f'data.test={data.test:g}'}: of the {len(train.names)} "
                f"classes of {train.source} {len(held)} are held out, so {len(left)} are left to {what}; an episode "
                "has at least 2. Hold out others, or give more classes."
            )
    learned = replace(train.of(kept, f"train ({train.source})"), notes=train.notes)
    return _turned(checked, learned), _turned(checked, train.of(held, f"what is held out of {train.source}"))


def _held(checked: CheckedEpisodes, names: list[str]) -> list[int]:
    """Choose the classes that are held out."""
    data = checked.recipe.data
    if data.held_out:
        found: set[int] = set()
        for pattern in data.held_out:
            matched = [code for code, name in enumerate(names) if fnmatchcase(name, pattern)]
            if not matched:
                near = nearest(pattern, names)
                hint = f" Did you mean '{near}'?" if near else ""
                raise DataError(f"data.held_out: '{pattern}' matches none of the {len(names)} classes of train.{hint}")
            found.update(matched)
        return sorted(found)
    assert isinstance(data.test, float)
    draw = np.random.default_rng(derived(checked.recipe.seed, "split"))
    count = round(data.test * len(names))
    return sorted(draw.permutation(len(names))[:count].tolist())


def _read(checked: CheckedEpisodes, named: str) -> Labelled:
    recipe, path = checked.recipe, checked.path(named)
    if recipe.images:
        images = read_images(path, recipe.model.size, 3 if recipe.model.colour else 1)
        skipped = f"{path}: {len(images.skipped)} files are no images by their suffix, for example "
        notes = (f"{skipped}'{images.skipped[0]}'; they were left out.",) if images.skipped else ()
        return Labelled(images.pixels, images.labels, images.label_names, str(path), images.content_hash, notes)
    columns = Columns(recipe.data.text, recipe.data.label)
    found = read_examples(find_reader(str(path) if path.exists() else named), columns)
    texts, labels = [row["text"] for row in found.rows()], found.labels.astype(np.int64)
    mixed = tuple(of_types({str(named): found}))
    return Labelled(texts, labels, list(found.label_names), str(named), hash_of([texts, labels.tolist()]), mixed)


def _turned(checked: CheckedEpisodes, rows: Labelled) -> Labelled:
    """Add classes of turned images where the recipe wants them."""
    if not checked.recipe.data.rotations:
        return rows
    assert isinstance(rows.content, np.ndarray)
    content, labels, names = rotated(rows.content, rows.labels, rows.names)
    return Labelled(content, labels, names, rows.source, rows.content_hash, rows.notes)
