"""Near copies in files of any length: a sketch is kept of every text, the texts themselves on disk.

Texts are compared as in `near`, with fewer random orders. Of every order a byte of the text's smallest trigram is kept,
so that how alike two texts are is estimated without reading them: of equal sets all bytes agree, of sets with Jaccard
similarity J each with probability J + (1 - J) / 256 (Li and Koenig 2010). Pairs that agree in a band are estimated, the
likely ones are compared exactly, each text's likeliest first, but for those of which both texts are known to be near
copies. A pair exactly at the threshold is missed with a chance below 1 % by the bands, and below 0.2 % by the
estimate.

Limits bound the work, whatever the file: of pairs that are estimated, of likely ones that are held, both with the same
share for each band and neighbours first, and of pairs that are compared. Where one of them cuts something off, the
result says that it is not complete.

Source: P. Li, A. Koenig 2010, b-bit minwise hashing, WWW.
"""

from __future__ import annotations

import math
import mmap
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np

from tunesmith.core.files import Scratch
from tunesmith.data.near import Bytes, Keys, bands_of, candidates, normal, sketches, trigram_keys
from tunesmith.data.splitting import Index

_ORDERS = 40  # most random orders per text
_ESTIMATED = 64_000_000  # pairs estimated at all
_HELD = 4_000_000  # likely pairs that are held
_MOST = 500_000  # pairs compared at all
_UNLIKELY = 0.002  # chance that a pair exactly at the threshold is estimated too low to be compared
_AT_ONCE = 1 << 18  # pairs estimated at once
_PAIRS, _BYTES = 4096, 1 << 21  # pairs compared at once, and bytes of their texts
_WORD = 8  # bytes of a sketch that are compared in one operation
_SIDE, _OTHER = 32, (1 << 32) - 1  # a pair of numbers in one


class NearIndex:
    """Texts on their way through, ready to be searched for near copies.

    Args:
        threshold: least Jaccard similarity of character trigrams.
        seed: of the random orders.
    """

    def __init__(self, threshold: float, seed: int = 0) -> None:
        self.threshold, self._seed = threshold, seed
        self.bands, each = bands_of(threshold, _ORDERS)
        self.orders = self.bands * each
        self._folder = Scratch()
        self._path = self._folder.path / "texts"
        self._file = open(self._path, "wb")  # noqa: SIM115 - it stays open while rows come
        self._ends = array("q", [0])
        self._keys: list[Keys] = []
        self._marks: list[Keys] = []

    def add(self, texts: list[str]) -> None:
        """Take some texts up.

        Args:
            texts: the next ones.
        """
        plain = [normal(text) for text in texts]
        cells = [text.encode("utf-8", "surrogatepass") for text in plain]
        self._file.write(b"".join(cells))
        for cell in cells:
            self._ends.append(self._ends[-1] + len(cell))
        keys, marks = zip(*sketches(plain, self.threshold, self._seed, _ORDERS), strict=True)
        self._keys.append(np.stack(keys))
        filled = np.zeros((len(texts), -(-self.orders // _WORD) * _WORD), np.uint8)
        filled[:, : self.orders] = np.concatenate(marks, axis=1)
        self._marks.append(filled.view(np.uint64))

    def near(self, rows: Index) -> dict[str, Any]:
        """Find near copies among texts.

        Args:
            rows: numbers of the texts to compare, of which none equals another.
        Returns:
            "rows" that are a near copy of another one; "complete", whether all pairs that had to be were compared;
            "pairs" of row numbers, the first few; and random "orders".
        """
        self._file.close()
        pairs, all_held = self._likely(rows)
        found, all_compared = self._compare(pairs)
        found = found[:, np.lexsort((found[1], found[0]))]
        near = np.unique(found)
        return {
            "rows": len(near),
            "complete": (all_held and all_compared) or len(near) == len(rows),
            "pairs": found[:, :5].T.tolist(),
            "orders": self.orders,
        }

    def _likely(self, rows: Index) -> tuple[Index, bool]:
        """Return likely pairs, (2, pairs), each text's likeliest first, and whether they are all."""
        keys, marks = np.concatenate(self._keys, axis=1)[:, rows], np.concatenate(self._marks)[rows]
        least, whole = _least(self.threshold, self.orders) + marks.shape[1] * _WORD - self.orders, True
        codes, alike = [np.zeros(0, np.int64)], [np.zeros(0, np.uint8)]
        for place, band in enumerate(keys):
            # of the texts with the same key those that agree in another band, too, stand side by side
            order = np.lexsort((keys[place - 1], band))
            more, theirs, ended = _estimated(marks, candidates(band, order), least, self.bands)
            codes.append(more)
            alike.append(theirs)
            whole = whole and ended
        found, first = np.unique(np.concatenate(codes), return_index=True)
        pairs, unlike = np.stack([found >> _SIDE, found & _OTHER]), ~np.concatenate(alike)[first]
        # of a row with many likely pairs not all before the first one of another row
        first = np.minimum(_places(pairs[0], unlike), _places(pairs[1], unlike))
        return rows[pairs[:, np.lexsort((unlike, first))]], whole

    def _compare(self, pairs: Index) -> tuple[Index, bool]:
        """Return the pairs that are near copies, but for pairs of texts of which both are in others, and whether that
        is all of them."""
        parts, known = [pairs[:, :0]], np.zeros(len(self._ends), bool)
        ends, done, left = np.frombuffer(self._ends, np.int64), 0, _MOST
        if not pairs.shape[1]:
            return pairs, True
        with open(self._path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            while done < pairs.shape[1] and left:
                part = pairs[:, done : done + min(_PAIRS, left)]
                size = (ends[part + 1] - ends[part]).sum(axis=0).cumsum()
                part = part[:, : max(1, int(np.searchsorted(size, _BYTES)))]
                done += part.shape[1]
                part = part[:, ~known[part].all(axis=0)]
                left -= part.shape[1]
                sides = [[self._text(content, row) for row in side] for side in part.tolist()]
                parts.append(part[:, _similarity(*sides) >= self.threshold] if part.shape[1] else part)
                known[parts[-1]] = True
        return np.concatenate(parts, axis=1), bool(known[pairs[:, done:]].all(axis=0).all())

    def _text(self, content: mmap.mmap, row: int) -> str:
        return content[self._ends[row] : self._ends[row + 1]].decode("utf-8", "surrogatepass")


def _least(threshold: float, orders: int) -> int:
    """Return in how many orders a pair has to agree to be compared.

    Two sets at the threshold agree in fewer of them with a chance below 0.2 %, by the binomial distribution.
    """
    chance, found = 0.0, 0
    while found < orders:
        chance += math.comb(orders, found) * threshold**found * (1 - threshold) ** (orders - found)
        if chance >= _UNLIKELY:
            break
        found += 1
    return found


def _estimated(marks: Keys, pairs: Iterator[tuple[Index, Index]], least: int, bands: int) -> tuple[Index, Bytes, bool]:
    """Estimate the pairs of one band, up to its share of what is estimated and held.

    Args:
        marks: (texts, words), bytes of the smallest trigrams.
        pairs: numbers of texts, (pairs,) each.
        least: bytes that have to agree. [count]
        bands: that share. [count]
    Returns:
        Likely pairs, `smaller number << 32 | larger number`, bytes that agree, and whether that is all of them.
    """
    codes, alike, left, room = [np.zeros(0, np.int64)], [np.zeros(0, np.uint8)], _ESTIMATED // bands, _HELD // bands
    for many in pairs:
        for start in range(0, len(many[0]), _AT_ONCE):
            if left <= 0 or room <= 0:
                return np.concatenate(codes), np.concatenate(alike), False
            one, other = (side[start : start + _AT_ONCE] for side in many)
            same = _agreeing(marks[one], marks[other])
            likely = np.flatnonzero(same >= least)
            left, room = left - len(one), room - len(likely)
            one, other = one[likely], other[likely]
            codes.append(np.minimum(one, other) << _SIDE | np.maximum(one, other))
            alike.append(same[likely])
    return np.concatenate(codes), np.concatenate(alike), True


def _places(texts: Index, unlike: Bytes) -> Index:
    """Number the pairs of each text from 0, the likeliest first, (pairs,)."""
    order = np.lexsort((unlike, texts))
    first = np.concatenate([[True], texts[order][1:] != texts[order][:-1]])[: len(texts)]
    numbers = np.arange(len(texts))
    places = np.empty_like(numbers)
    places[order] = numbers - np.maximum.accumulate(np.where(first, numbers, 0))
    return places


def _agreeing(left: Keys, right: Keys) -> Bytes:
    """Count the bytes in which rows agree, (rows,)."""
    same = (left.view(np.uint8) == right.view(np.uint8)).view(np.uint64)
    counts = sum((same[:, word] for word in range(1, same.shape[1])), start=same[:, 0])
    # the bytes of a word are added up in its highest one
    return ((counts * np.uint64(0x0101010101010101)) >> np.uint64(56)).astype(np.uint8)


def _similarity(left: list[str], right: list[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Compute the Jaccard similarities of pairs of texts, (pairs,)."""
    sizes = []
    keys = []
    for texts in (left, right):
        grams, starts = trigram_keys(texts)
        owners = np.repeat(np.arange(len(texts), dtype=np.uint64), np.diff(starts))
        # a trigram as one of 2^52 numbers in front of its pair: two that differ meet by chance of 1e-13 in a pair
        mine = np.sort((grams >> np.uint64(12)) | (owners << np.uint64(52)))
        mine = mine[np.concatenate([[True], mine[1:] != mine[:-1]])]
        keys.append(mine)
        sizes.append(np.bincount((mine >> np.uint64(52)).astype(np.int64), minlength=len(texts)))
    shared = np.intersect1d(keys[0], keys[1], assume_unique=True)
    both = np.bincount((shared >> np.uint64(52)).astype(np.int64), minlength=len(left))
    return both / (sizes[0] + sizes[1] - both)
