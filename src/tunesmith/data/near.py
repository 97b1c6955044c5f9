"""Near copies: groups of rows whose texts are nearly the same, so that a split can keep them together.

Two texts are near copies when the Jaccard similarity of their sets of character trigrams, J = |A ∩ B| / |A ∪ B|, is at
least a threshold; texts shorter than three characters when they are equal. Both are compared as NFKC, casefolded, white
space collapsed. Groups are connected components, so being in one group is transitive: if a is near b and b is near c,
all three stay together even where a and c differ.

Comparing every text with every other one grows with the square of the rows. MinHash finds the pairs worth comparing:
for a random order of all trigrams, two sets have the same smallest one with probability J (Broder 1997). Of `bands` x
`rows` such orders, a pair is compared when it agrees in all orders of one band at least, which has the probability
1 - (1 - J^rows)^bands (Leskovec, Rajaraman, Ullman, ch. 3). What is compared is compared exactly, so no pair below the
threshold joins a group; a pair exactly at the threshold is missed with a chance below 1 %, one above it with less.

Source: A. Broder 1997, On the resemblance and containment of documents. J. Leskovec, A. Rajaraman, J. Ullman, Mining of
Massive Datasets, ch. 3.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tunesmith.core.errors import DataError
from tunesmith.data.splitting import Index

_MISSED = 0.01  # chance to miss a pair exactly at the threshold
_ORDERS = 300  # most random orders of the trigrams; more of them per band leave fewer pairs to compare in vain
_BLOCK = 1 << 17  # trigrams whose order is drawn at once, so that they stay in the processor's cache
_PAIRS = 1 << 17  # pairs compared at once
_FILL = "\U0010ffff"  # no character: fills texts of one or two characters up to a trigram of their own
_PLACE = 21  # bits of a code point, so three of them fit into 64

Keys = np.ndarray[Any, np.dtype[np.uint64]]
Short = np.ndarray[Any, np.dtype[np.uint32]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def near_groups(sides: Sequence[Sequence[str]], threshold: float, seed: int = 0) -> Index:
    """Number the groups of rows that are near copies of each other on any side.

    Args:
        sides: one text per row each: one side for texts, two for questions and answers.
        threshold: least Jaccard similarity of near copies, 0 < threshold <= 1.
        seed: of the random orders.
    Returns:
        (rows,), a group number per row, from 0 in order of first appearance.
    Raises:
        DataError: one group holds more than half of the rows, so no split could separate anything.
    Example:
        >>> near_groups([["The cat sat.", "A dog!", "the  cat sat", "No."]], 0.7).tolist()
        [0, 1, 0, 2]
    """
    groups = np.arange(len(sides[0]))
    for texts in sides:
        groups = _merged(groups, *_chained(text_groups(texts, threshold, seed)))
    counts = np.bincount(groups)
    if counts.max() > max(1, len(groups) // 2):
        raise DataError(
            f"data.near_copies={threshold}: {counts.max():,} of {len(groups):,} rows are near copies of each other, "
            "directly or through others, so they cannot be split. Raise data.near_copies, or leave it out."
        )
    return groups


def text_groups(texts: Iterable[str], threshold: float, seed: int = 0) -> Index:
    """Number the groups of texts that are near copies of each other, directly or through others.

    Args:
        texts: any number.
        threshold: least Jaccard similarity of near copies, 0 < threshold <= 1.
        seed: of the random orders.
    Returns:
        (texts,), a group number per text.
    """
    distinct, codes = _distinct(texts)
    if not distinct:
        return codes
    return _joined_texts(distinct, threshold, seed)[codes]


def joined_groups(first: Index, second: Index) -> Index:
    """Join two ways of grouping the same rows: rows stay together that either keeps together.

    Args:
        first: (rows,), a group number per row.
        second: the same.
    Returns:
        (rows,), a group number per row.
    Example:
        >>> joined_groups(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2])).tolist()
        [0, 0, 0, 1]
    """
    numbers = np.unique(first, return_inverse=True)[1]
    return _merged(numbers, *_chained(second))


def worded(groups: Index, threshold: float) -> str:
    """Say what was kept together.

    Args:
        groups: (rows,), from `near_groups`.
        threshold: that made them.
    Returns:
        A sentence for the user.
    """
    counts = np.bincount(groups)
    return (
        f"near copies (data.near_copies={threshold}): {len(groups):,} rows make {len(counts):,} groups; "
        f"{together(groups):,} rows are in groups of several and were kept together in one split, the largest group "
        f"has {counts.max():,}."
    )


def together(groups: Index) -> int:
    """Count rows that share their group with another row.

    Args:
        groups: (rows,), a group number per row.
    Returns:
        How many. [count]
    """
    _, counts = np.unique(groups, return_counts=True)
    return int(counts[counts > 1].sum())


def without_shared_start(texts: Sequence[str]) -> list[str]:
    """Leave out what all texts begin with, as an instruction, which says nothing about how alike they are.

    Args:
        texts: any number.
    Returns:
        The texts without it.
    Example:
        >>> without_shared_start(["Translate: yes", "Translate: no"])
        ['yes', 'no']
    """
    first, last = min(texts), max(texts)  # all others lie between these two, so they begin with what both begin with
    start = next((at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    return [text[start:] for text in texts]


def bands_of(threshold: float, orders: int = _ORDERS) -> tuple[int, int]:
    """Choose how many random orders a band has, and how many bands there are.

    (1 - threshold^rows)^bands < 0.01, with as many rows as the orders allow.

    Args:
        threshold: least similarity to find.
        orders: most random orders. [count]
    Returns:
        (bands, rows).
    Example:
        >>> bands_of(0.7), bands_of(0.5)
        ((37, 6), (72, 4))
    """
    if threshold >= 1:
        return 1, 1  # equal sets agree in every order
    best = (math.ceil(math.log(_MISSED) / math.log1p(-threshold)), 1)
    for rows in range(2, orders):
        bands = math.ceil(math.log(_MISSED) / math.log1p(-(threshold**rows)))
        if bands * rows > orders:
            break
        best = (bands, rows)
    return best


def normal(text: str) -> str:
    """Write a text as it is compared: NFKC, casefolded, white space collapsed, at least three signs.

    Args:
        text: any.
    Returns:
        The text.
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).ljust(3, _FILL)


def _distinct(texts: Iterable[str]) -> tuple[list[str], Index]:
    """Number the different texts, so that copies cost nothing further."""
    numbers: dict[str, int] = {}
    codes = np.fromiter((numbers.setdefault(normal(text), len(numbers)) for text in texts), np.int64)
    return list(numbers), codes


def _joined_texts(texts: list[str], threshold: float, seed: int) -> Index:
    """Number the groups of different texts."""
    from scipy import sparse

    grams, starts = _trigrams(texts)
    names, places = np.unique(grams, return_inverse=True)
    sets = sparse.csr_matrix((np.ones(len(grams), np.int32), places, starts), (len(texts), len(names)))
    sets.sum_duplicates()
    sets.data[:] = 1
    hashes = (_mixed(names) >> np.uint64(32)).astype(np.uint32)[sets.indices]
    groups = np.arange(len(texts))
    for keys in _band_keys(hashes, sets.indptr.astype(np.int64), threshold, seed):
        for left, right in candidates(keys, np.argsort(keys, kind="stable")):
            apart = groups[left] != groups[right]
            left, right = left[apart], right[apart]
            near = _are_near(sets, left, right, threshold)
            groups = _merged(groups, left[near], right[near])
    return groups


def _trigrams(texts: list[str]) -> tuple[Keys, Index]:
    """Return all trigrams of all texts as numbers, and where each text's begin; the last entry is the end."""
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    place = np.uint64(_PLACE)
    grams = (((points[:-2] << place) | points[1:-1]) << place) | points[2:]
    inside = np.ones(len(points), bool)
    ends = np.cumsum(lengths)
    inside[ends - 1] = inside[ends - 2] = False  # there a trigram would reach into the next text
    return grams[inside[:-2]], np.concatenate([[0], np.cumsum(lengths - 2)])


def _mixed(keys: Keys) -> Keys:
    """Scatter numbers over 64 bits (the finalizer of splitmix64)."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def trigram_keys(texts: list[str]) -> tuple[Keys, Index]:
    """Return the trigrams of texts as scattered numbers.

    Args:
        texts: as `normal` writes them.
    Returns:
        All of them one after another, and where each text's begin; the last entry is the end.
    """
    grams, starts = _trigrams(texts)
    return _mixed(grams), starts


def sketches(texts: list[str], threshold: float, seed: int, orders: int) -> Iterator[tuple[Keys, Bytes]]:
    """Go through the bands of texts: what tells which texts to compare, and how alike two of them are about.

    Args:
        texts: as `normal` writes them.
        threshold: least similarity to find.
        seed: of the random orders; the same one for texts that are compared.
        orders: most random orders. [count]
    Returns:
        Per band (texts,), a number that is equal where all smallest trigrams of the band are, and (texts, rows), a byte
        of each of these trigrams.
    """
    keys, starts = trigram_keys(texts)
    hashes = (keys >> np.uint64(32)).astype(np.uint32)
    for smallest in _bands(hashes, starts.astype(np.int64), threshold, seed, orders):
        yield _together(smallest), np.stack([one.astype(np.uint8) for one in smallest], axis=1)


def _band_keys(hashes: Short, starts: Index, threshold: float, seed: int) -> Iterator[Keys]:
    """Go through the bands: a number per text that agrees where all smallest trigrams of the band agree."""
    return map(_together, _bands(hashes, starts, threshold, seed, _ORDERS))


def _bands(hashes: Short, starts: Index, threshold: float, seed: int, orders: int) -> Iterator[list[Keys]]:
    """Go through the bands: each text's smallest trigram in each random order of the band."""
    draw = np.random.default_rng(seed)
    bands, rows = bands_of(threshold, orders)
    for _ in range(bands):
        factors = draw.integers(0, 1 << 31, rows, np.uint32) * np.uint32(2) + np.uint32(1)
        yield [_smallest(hashes, starts, factor) for factor in factors]


def _together(smallest: list[Keys]) -> Keys:
    """Make one number of several."""
    keys = np.zeros(len(smallest[0]), np.uint64)
    for one in smallest:
        keys = _mixed(keys ^ one)
    return keys


def _smallest(hashes: Short, starts: Index, factor: np.uint32) -> Keys:
    """Return each text's smallest hash after multiplying by an odd number, which reorders all 32-bit numbers."""
    found = np.empty(len(starts) - 1, np.uint64)
    edges = np.unique(np.searchsorted(starts, np.arange(0, starts[-1], _BLOCK)))
    for first, last in zip(edges, [*edges[1:], len(starts) - 1], strict=True):
        part = hashes[starts[first] : starts[last]] * factor
        found[first:last] = np.minimum.reduceat(part, starts[first:last] - starts[first])
    return found


def candidates(keys: Keys, order: Index) -> Iterator[tuple[Index, Index]]:
    """Go through all pairs of texts with the same key, those that are next to each other first.

    Args:
        keys: (texts,).
        order: (texts,), numbers of the texts, those with the same key side by side.
    Returns:
        Numbers of texts, (pairs,) each: all neighbours, all with one text between, and so on.
    """
    keys = keys[order]
    left, step = np.flatnonzero(keys[1:] == keys[:-1]), 1
    while len(left):
        yield order[left], order[left + step]
        step += 1
        left = left[left + step < len(keys)]
        left = left[keys[left + step] == keys[left]]


def _are_near(sets: Any, left: Index, right: Index, threshold: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Compare pairs of sets exactly."""
    sizes = np.diff(sets.indptr)
    shared = np.zeros(len(left), np.int64)
    for start in range(0, len(left), _PAIRS):
        part = slice(start, start + _PAIRS)
        shared[part] = np.asarray(sets[left[part]].multiply(sets[right[part]]).sum(axis=1)).ravel()
    near: np.ndarray[Any, np.dtype[np.bool_]] = shared / (sizes[left] + sizes[right] - shared) >= threshold
    return near


def _chained(codes: Index) -> tuple[Index, Index]:
    """Return pairs of rows that connect all rows of the same code."""
    order = np.argsort(codes, kind="stable")
    same = codes[order][1:] == codes[order][:-1]
    return order[:-1][same], order[1:][same]


def _merged(groups: Index, left: Index, right: Index) -> Index:
    """Join the groups of pairs of members; numbered in order of first appearance."""
    if not len(left):
        return groups
    from scipy import sparse
    from scipy.sparse import csgraph

    count = int(groups.max()) + 1
    links = sparse.coo_matrix((np.ones(len(left), bool), (groups[left], groups[right])), (count, count))
    _, joined = csgraph.connected_components(links, directed=False)
    _, first, numbers = np.unique(joined[groups], return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[numbers]
