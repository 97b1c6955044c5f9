"""Look through a data file row by row: what it is, what is odd about it."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.errors import DataError, unknown
from tunesmith.core.files import sha256_of
from tunesmith.core.registry import components
from tunesmith.data.audit import text_hashes
from tunesmith.data.columns import ColumnFacts, guess_columns
from tunesmith.data.conversations import check_question, messages_of
from tunesmith.data.damage import damage_of
from tunesmith.data.examples import Lines
from tunesmith.data.formats.base import written
from tunesmith.data.images import SUFFIXES, ImageLimits, image_bytes, open_image
from tunesmith.data.language import language_of, script_of
from tunesmith.data.near_index import NearIndex
from tunesmith.data.personal import FindNames, find_personal
from tunesmith.data.readers.base import Reader, Row, steady_rows

_FIRST = 2000  # rows that columns are guessed from
_BLOCK = 4096
_TOLD, _EVERY = 20_000, 20  # the language of the first rows is told, and of every 20th row behind them
_SHOWN = 5
_TAGS = re.compile(r"</?[a-zA-Z][^<>]{0,200}>|&[a-zA-Z]{2,8};|&#[0-9]{1,6};")
_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u200b\u2060\ufeff\u202a-\u202e]")


class Inspection:
    """What is found in one file, growing as its rows are read.

    Args:
        reader: of the file.
        text: text column; guessed when None.
        label: label column; guessed when None.
        near: least similarity of near copies; 0 looks for none. [fraction]
        names: finds names of persons; they are not looked for when None.
    Raises:
        DataError: the file cannot be read, or lacks a column that was named; or an image or sound cannot be read, and
            the reader does not gather such files, or there is no other.
    """

    def __init__(
        self,
        reader: Reader,
        text: str | None = None,
        label: str | None = None,
        near: float = 0.9,
        names: FindNames | None = None,
    ) -> None:
        self.path, self.reader, self.files = reader.path, reader, type(reader).file_column
        if self.files and names is not None:
            raise DataError(
                f"{self.path}: tagger: its rows are files, not texts, so no names are in them. Leave it out."
            )
        self._find_names = names
        rows = steady_rows(reader)
        first = list(islice(rows, _FIRST))
        if not first:
            raise DataError(self._nothing())
        self._settle(first, text, label)
        self.columns = {name: ColumnFacts(name) for name in self.names}
        self.lengths, self.words, self.where = array("q"), array("q"), Lines()
        self.hashes, self.labels = array("Q"), Counter[str]()
        self.marks: dict[str, list[str]] = {}  # where rows stand that something was found in, the first few
        self.counts, self.scripts, self.languages = Counter[str](), Counter[str](), Counter[str]()
        self.unfit, self._unfit = 0, list[dict[str, str]]()  # rows that are no conversations where the others are
        self._codes, self._names = array("i"), dict[str, int]()
        self.near, self._index = near, NearIndex(near) if near and not self.files else None
        self._pending: list[str] = []
        self._shown: dict[str, list[str]] = {}  # the first images or sounds of every label
        for where, values in chain(first, rows):
            self._add(where, values)
        if not self.where:
            raise DataError(self._nothing())
        self._flush()
        for column in self.columns.values():
            column.missing = len(self.where) - column.filled  # also in rows that lack the column

    def _nothing(self) -> str:
        """Say that there is no row."""
        if not self.unreadable:
            return f"{self.path} holds no examples: there is a header at most."
        count, first = len(self.unreadable), self.unreadable[0]
        return f"{self.path}: none of {count:,} files can be read. The first is {first['file']}: {first['why']}"

    @property
    def unreadable(self) -> list[dict[str, str]]:
        """Images or sounds that cannot be read, each with the reason, where the reader gathers them."""
        return sorted(self.reader.unreadable or [], key=lambda one: one["file"])

    def _settle(self, first: Sequence[Row], text: str | None, label: str | None) -> None:
        """Decide which columns are what from the first rows."""
        self.names = list(dict.fromkeys(name for _, values in first for name in values))
        self.holds = type(self.reader).holds
        for wanted in (text, label):
            if wanted is not None and wanted not in self.names:
                raise DataError(f"{self.path}: {unknown('column', wanted, map(str, self.names))}")
        looked = [ColumnFacts(name) for name in self.names]
        for where, values in first:
            for column in looked:
                column.add(values.get(column.name), where)
        guessed_text, guessed_label, self.why = guess_columns(looked, len(first))
        if self.holds:
            guessed_text, guessed_label = type(self.reader).text_column, type(self.reader).label_column
            self.why = [f"{self.holds}: the reader says what its columns are"]
        self.text, self.label = text or guessed_text, label or guessed_label
        if text is not None and text == label:
            raise DataError(f"{self.path}: column '{text}' cannot be both text and label. Name two columns.")
        if self.label == self.text:
            self.label = None
        given = {"text": text, "label": label}
        self.why = [why for why in self.why if given.get(why.partition(" ")[0]) is None]
        self.why += [f"{what} is '{name}': as it was named" for what, name in given.items() if name is not None]
        columns = [str(name) for name in first[0][1]]
        self.form = next((name for name, kind in components("formats").items() if kind.fits(columns)), None)
        self._format = components("formats")[self.form]() if self.form and self.label is None else None

    # Rows -----------------------------------------------------------------------------------------------------

    def _add(self, where: str, values: Mapping[str, Any]) -> None:
        content = self.reader.attempt(values[self.files], _content) if self.files else _text(values, self.text)
        if content is None:
            return
        self.where.append(where)
        for name, value in values.items():
            if name not in self.columns:
                self.columns[name] = ColumnFacts(name)
            self.columns[name].add(value, where)
        self._try_conversation(where, values)
        label: Any = values.get(self.label or "")
        listed = isinstance(label, list)
        if self.label is not None and (listed or written(label).strip()):
            self.labels.update(map(str, label if listed else [label]))
            self._codes.append(-1 if listed else self._names.setdefault(str(label), len(self._names)))
        else:
            self._codes.append(-1)
        if self.files:
            self._show(values.get(self.label or ""), str(values[self.files]))
        self._pending.append(content)
        if len(self._pending) >= _BLOCK:
            self._flush()

    def _try_conversation(self, where: str, values: Mapping[str, Any]) -> None:
        """Note a row that a task which learns conversations would refuse."""
        if self._format is None:
            return
        try:
            check_question(messages_of(self._format.turns(values)[0]))
        except (DataError, KeyError) as error:
            self.unfit += 1
            lacking = isinstance(error, KeyError)
            if len(self._unfit) < _SHOWN:
                self._unfit.append({"where": where, "why": f"there is no column {error}." if lacking else str(error)})

    def _show(self, label: Any, path: str) -> None:
        """Keep the first files of every label for the page."""
        label = ", ".join(map(str, label)) if isinstance(label, list) else "" if label is None else str(label)
        most = type(self.reader).shown
        if label in self._shown or len(self._shown) < most:
            files = self._shown.setdefault(label, [])
            files += [path] * (len(files) < most)

    @property
    def shown(self) -> list[dict[str, str]]:
        """Files for the page, with their labels: as many of each label, at least one."""
        each = type(self.reader).shown // max(1, len(self._shown))
        return [{"file": path, "label": label} for label, files in self._shown.items() for path in files[:each]]

    def _flush(self) -> None:
        texts, start = self._pending, len(self.lengths)
        self._pending = []
        for number, text in enumerate([] if self.files else texts, start):
            self.lengths.append(len(text))
            self.words.append(text.count(" ") + 1 if text else 0)
            self._look(text, number)
        for number, names in enumerate(self._find_names(texts) if self._find_names else [], start):
            if names:
                self._mark("name", number)
        self.hashes.frombytes(text_hashes(texts).tobytes())
        if self._index is not None and texts and not self.files:
            self._index.add(texts)

    def _look(self, text: str, number: int) -> None:
        """Note what is odd about a text."""
        self.scripts[script_of(text) or "none"] += 1
        if number < _TOLD or number % _EVERY == 0:
            self.languages[language_of(text) or "unsure"] += 1
        damage = damage_of(text)
        if damage is not None:
            self._mark(damage, number)
        if ("<" in text or "&" in text) and _TAGS.search(text):
            self._mark("html", number)
        if not text.isprintable() and _UNSEEN.search(text):
            self._mark("control characters", number)
        for kind in {one.kind for one in find_personal(text)}:
            self._mark(kind, number)

    def _mark(self, what: str, number: int) -> None:
        self.counts[what] += 1
        places = self.marks.setdefault(what, [])
        if len(places) < _SHOWN:
            places.append(self.where[number])

    # Facts ----------------------------------------------------------------------------------------------------

    def plain(self) -> dict[str, Any]:
        """Return everything that was found.

        Returns:
            Plain values.
        """
        lengths, rows = np.frombuffer(self.lengths, np.int64), len(self.where)
        hashes = np.frombuffer(self.hashes, np.uint64)
        _, first = np.unique(hashes, return_index=True)
        codes = np.frombuffer(self._codes, np.int32)
        _, start, numbers = np.unique(hashes, return_index=True, return_inverse=True)
        conflicts = int((codes != codes[start[numbers]]).sum())
        near = self._index.near(np.sort(first)) if self._index is not None and not self.files else None
        return {
            "file": self.path,
            "reader": type(self.reader).name,
            "what": self._what(),
            "rows": rows,
            "columns": [column.plain() for column in self.columns.values()],
            "text": self.text,
            "label": self.label,
            "why": self.why,
            "characters": None if self.files else _spread(lengths),
            "words": None if self.files else _spread(np.frombuffer(self.words, np.int64)),
            "histogram": None if self.files else _histogram(lengths),
            "scripts": dict(self.scripts.most_common()),
            "languages": dict(self.languages.most_common()),
            "labels": dict(self.labels.most_common()),
            "duplicates": rows - len(first),
            "conflicts": conflicts,
            "near_duplicates": near,
            "near_threshold": self.near,
            "personal": {
                kind: self.counts[kind]
                for kind in ("mail", "phone", "card", "iban", "id", *(("name",) if self._find_names else ()))
            },
            "found": {what: {"rows": self.counts[what], "first": places} for what, places in self.marks.items()},
            "outliers": [] if self.files else _outliers(lengths, self.where),
            "files": self.shown,
            "skipped": self.reader.skipped,
            "unfit": {"rows": self.unfit, "first": self._unfit},
            "unreadable": self.unreadable,
        }

    def _what(self) -> str:
        if self.holds:
            return f"{self.holds}, {len(self.labels):,} labels" if self.labels else self.holds
        if self.form is not None and self.label is None:
            return f"conversations ({self.form})"
        if self.text is None:
            return "rows without a text column"
        return f"texts with {len(self.labels):,} labels" if self.label else "texts without labels"


def _text(values: Mapping[str, Any], column: str | None) -> str:
    """Return what of a row is read: the text column, or every text of a conversation."""
    if column is not None:
        value = values.get(column)
        if isinstance(value, list):  # of tokens
            return " ".join(map(str, value))
        return value if isinstance(value, str) else "" if value is None or value != value else str(value)
    return "\n".join(_texts(list(values.values())))


def _content(path: str) -> str:
    """Return a text that files of one content share; an image is decoded, so that a damaged one is named."""
    if not path.lower().endswith(SUFFIXES):
        return sha256_of([Path(path)])
    content = image_bytes(path, ImageLimits())
    open_image(content, path)
    return hashlib.sha256(content).hexdigest()


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [text for one in inner for text in _texts(one)]


def _spread(values: np.ndarray[Any, Any]) -> dict[str, float]:
    points = np.percentile(values, [0, 50, 95, 100])
    return {**dict(zip(("least", "median", "p95", "most"), points.tolist(), strict=True)), "mean": float(values.mean())}


def _histogram(lengths: np.ndarray[Any, Any]) -> dict[str, list[float]]:
    """Count rows by length; the longest hundredth is one bar."""
    most = max(1.0, float(np.percentile(lengths, 99)))
    counts, edges = np.histogram(np.minimum(lengths, most), bins=min(30, int(most) + 1), range=(0, most))
    return {"counts": counts.tolist(), "edges": edges.tolist()}


def _outliers(lengths: np.ndarray[Any, Any], where: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows that are longer or shorter than the middle half of all by three times its width, in logarithms.

    Source: Tukey 1977, Exploratory Data Analysis, outer fences.
    """
    logs = np.log1p(lengths)
    low, high = np.percentile(logs, [25, 75])
    width = max(high - low, 0.1)
    odd = np.flatnonzero((logs < low - 3 * width) | (logs > high + 3 * width))
    order = odd[np.argsort(-np.abs(logs[odd] - (low + high) / 2), kind="stable")]
    shown = [{"where": where[int(row)], "characters": int(lengths[row])} for row in order[:_SHOWN]]
    return [{"rows": len(odd), "first": shown}] if len(odd) else []


def shared_rows(found: Sequence[Inspection]) -> list[dict[str, Any]]:
    """Count texts that stand in several files.

    Args:
        found: of the files.
    Returns:
        Per pair of files: rows of each that also stand in the other.
    """
    pairs = []
    for place, one in enumerate(found):
        for other in found[place + 1 :]:
            first, second = np.frombuffer(one.hashes, np.uint64), np.frombuffer(other.hashes, np.uint64)
            there = np.isin(first, second)
            if there.any():
                pairs.append({
                    "files": [one.path, other.path],
                    "rows": [int(there.sum()), int(np.isin(second, first).sum())],
                    "first": [one.where[int(row)] for row in np.flatnonzero(there)[:_SHOWN]],
                })  # fmt: skip
    return pairs
