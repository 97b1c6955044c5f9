"""Near copies in files of any length: band keys are kept for every text, the texts themselves on disk.

Texts are compared as in `near`, with fewer random orders, and only with the next eight texts that agree in a band, so
the work grows with the rows and not with the pairs. What is compared is compared exactly. The count is of rows for
which a near copy was found; a pair exactly at the threshold is missed with a chance below 1 % as far as orders go.
"""

from __future__ import annotations

import mmap
from array import array
from typing import Any

import numpy as np

from tunesmith.core.files import Scratch
from tunesmith.data.near import band_keys, bands_of, normal, trigram_keys
from tunesmith.data.splitting import Index

_ORDERS = 40  # most random orders per text
_NEXT = 8  # texts with the same key that each is compared with
_PAIRS = 4096  # pairs compared at once
_MOST = 100_000  # pairs compared at all


class NearIndex:
    """Texts on their way through, ready to be searched for near copies.

    Args:
        threshold: least Jaccard similarity of character trigrams.
        seed: of the random orders.
    """

    def __init__(self, threshold: float, seed: int = 0) -> None:
        self.threshold, self._seed = threshold, seed
        self._folder = Scratch()
        self._path = self._folder.path / "texts"
        self._file = open(self._path, "wb")  # noqa: SIM115 - it stays open while rows come
        self._ends = array("q", [0])
        self._keys: list[np.ndarray[Any, np.dtype[np.uint64]]] = []

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
        self._keys.append(np.stack([*band_keys(plain, self.threshold, self._seed, _ORDERS)]))

    def near(self, rows: Index) -> dict[str, Any]:
        """Find near copies among texts.

        Args:
            rows: numbers of the texts to compare, of which none equals another.
        Returns:
            "rows" that are a near copy of another one, "complete", whether all pairs that had to be were compared, and
            "pairs" of row numbers, the first few.
        """
        self._file.close()
        keys = np.concatenate(self._keys, axis=1)[:, rows]
        lefts, rights = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for band in keys:
            order = np.argsort(band, kind="stable")
            for step in range(1, _NEXT + 1):
                same = np.flatnonzero(band[order[step:]] == band[order[:-step]])
                lefts.append(rows[order[same]])
                rights.append(rows[order[same + step]])
        pairs = np.unique(np.stack([np.concatenate(lefts), np.concatenate(rights)]), axis=1)
        found, taken = self._compare(pairs[:, :: max(1, -(-pairs.shape[1] // _MOST))])
        near = np.unique(found)
        return {
            "rows": len(near),
            "complete": taken == pairs.shape[1],
            "pairs": found[:, :5].T.tolist(),
            "orders": bands_of(self.threshold, _ORDERS)[0] * bands_of(self.threshold, _ORDERS)[1],
        }

    def _compare(self, pairs: Index) -> tuple[Index, int]:
        """Return the pairs that are near copies, and how many were compared."""
        if not pairs.shape[1]:
            return pairs, 0
        with open(self._path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            parts = []
            for start in range(0, pairs.shape[1], _PAIRS):
                part = pairs[:, start : start + _PAIRS]
                left, right = ([self._text(content, row) for row in side.tolist()] for side in part)
                parts.append(part[:, _similarity(left, right) >= self.threshold])
        return np.concatenate(parts, axis=1), pairs.shape[1]

    def _text(self, content: mmap.mmap, row: int) -> str:
        return content[self._ends[row] : self._ends[row + 1]].decode("utf-8", "surrogatepass")


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
