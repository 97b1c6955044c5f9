"""Label words as tokens, and how their probabilities are read off a model at the place of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from tunesmith.core.errors import RecipeError
from tunesmith.models.backbone import Backbone
from tunesmith.models.branching import offsets
from tunesmith.models.language import LanguageModel
from tunesmith.models.layout import RaggedBatch, ragged
from tunesmith.tasks.encoding import written_tokens

Kind = Literal["masked", "causal", "paired"]  # fills in, writes on, or writes from what an encoder read
_ANCHOR = ":"  # stands before a word when it is tokenised, as some text always does


@dataclass(frozen=True)
class Words:
    """The words of all labels as tokens.

    Args:
        texts: of each word.
        ids: tokens of each word, at least one.
        owners: which label each word stands for.
        labels: C. [count]
    """

    texts: list[str]
    ids: list[list[int]]
    owners: list[int]
    labels: int

    @property
    def longest(self) -> int:
        """Tokens of the longest word. [count]"""
        return max(map(len, self.ids))


def tokenize_words(
    tokenizer: Any, words: Sequence[Sequence[str]], kind: Kind, joiner: str, key: str = "prompt.label_words"
) -> Words:
    """Turn label words into tokens as they stand in a prompt.

    Args:
        tokenizer: of the model.
        words: of each label.
        kind: of the model.
        joiner: white space between the prompt and the word.
        key: of the recipe that they are written in, for errors.
    Returns:
        The words.
    Raises:
        RecipeError: a word without tokens, of unknown tokens, or of the same tokens as another label's.
    """
    texts = [word for some in words for word in some]
    owners = [label for label, some in enumerate(words) for _ in some]
    if kind == "paired":
        ids = written_tokens(tokenizer, texts)
        bare: list[list[int]] = tokenizer(text_target=texts, add_special_tokens=False, verbose=False)["input_ids"]
    else:
        ids = bare = [_behind(tokenizer, joiner + text) for text in texts]
    for text, own in zip(texts, bare, strict=True):
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in own:
            raise RecipeError(
                f"{key}: the tokenizer does not know '{text}' or a part of it ({tokenizer.unk_token}), so "
                "every unknown word would score alike. Choose another word."
            )
    _check_tokens(texts, owners, bare, key)
    return Words(texts, ids, owners, len(words))


def check_wordings(tokenizer: Any, words: Sequence[Sequence[str]], key: str = "prompt.label_words") -> None:
    """Refuse texts of labels that a sentence encoder could not tell apart.

    Args:
        tokenizer: of the model.
        words: of each label.
        key: of the recipe that they are written in, for errors.
    Raises:
        RecipeError: a text without tokens, or of the same tokens as another label's.
    """
    texts = [word for some in words for word in some]
    owners = [label for label, some in enumerate(words) for _ in some]
    _check_tokens(texts, owners, tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"], key)


def _check_tokens(texts: Sequence[str], owners: Sequence[int], ids: Sequence[Sequence[int]], key: str) -> None:
    """Refuse texts without tokens, or of the same ones as another label's."""
    first: dict[tuple[int, ...], int] = {}
    for number, (text, own) in enumerate(zip(texts, ids, strict=True)):
        if not own:
            raise RecipeError(f"{key}: '{text}' gives no token, so nothing of it could be scored.")
        other = first.setdefault(tuple(own), number)
        if owners[other] != owners[number]:
            raise RecipeError(
                f"{key}: '{texts[other]}' and '{text}' stand for different labels and are the same tokens "
                "to the model. Choose words that differ."
            )


def _behind(tokenizer: Any, text: str) -> list[int]:
    """Tokenise a text that stands behind another one."""
    texts = [_ANCHOR, _ANCHOR + text, text]
    anchor, whole, alone = map(list, tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"])
    return whole[len(anchor) :] if whole[: len(anchor)] == anchor else alone


@dataclass(frozen=True)
class Reading:
    """Which states of a row the words are read from.

    A masked model reads a word of m tokens off m masks at once, each token by itself. The others read each token after
    those before it; words that begin alike share their states.

    Args:
        words: to read.
        kind: of the model.
        mask: id of the mask token, for masked models.
    """

    words: Words
    kind: Kind
    mask: int | None = None

    @cached_property
    def ends(self) -> list[list[int]]:
        """What follows a row: the words without their last token, those left out that others begin with."""
        wanted = {tuple(ids[:-1]) for ids in self.words.ids if len(ids) > 1}
        covered = {end[:size] for end in wanted for size in range(1, len(end))}
        return [list(end) for end in sorted(wanted - covered)]

    @cached_property
    def sizes(self) -> list[int]:
        """Numbers of masks in a row, rising."""
        return sorted({len(ids) for ids in self.words.ids})

    @cached_property
    def picks(self) -> tuple[Tensor, Tensor, Tensor]:
        """(K,) each: the state, the token and the word of every token that is scored."""
        if self.kind == "masked":
            before = dict(zip(self.sizes, [0, *torch.tensor(self.sizes).cumsum(0).tolist()], strict=False))
            found = [
                (before[len(ids)] + place, token, word)
                for word, ids in enumerate(self.words.ids)
                for place, token in enumerate(ids)
            ]
        else:
            firsts = list(zip(self.ends, offsets(self.ends), strict=True))
            found = [
                (_state(firsts, ids[:place]), token, word)
                for word, ids in enumerate(self.words.ids)
                for place, token in enumerate(ids)
            ]
        state, token, word = torch.tensor(found).unbind(1)
        return state, token, word

    def states(self, backbone: Backbone, batch: RaggedBatch) -> Tensor:
        """Run the model.

        Args:
            backbone: with its language-model head.
            batch: R rows; each of a masked model holds one mask.
        Returns:
            (R, P, D).
        """
        assert isinstance(backbone, LanguageModel)
        if self.kind != "masked":
            return backbone.hidden_behind(batch, self.ends)
        masks = mask_places(batch, self.mask)
        if self.sizes == [1]:
            return backbone.hidden_at(batch, masks)[:, None]
        wide, places = _with_masks(batch, masks.cpu(), self.sizes)
        return backbone.hidden_at(wide, places).view(batch.layout.rows, -1, backbone.width)

    def scores(self, backbone: Backbone, states: Tensor, by_length: bool) -> Tensor:
        """Score every word with the delta in use.

        Args:
            backbone: with its language-model head.
            states: (R, P, D), from `states`.
            by_length: take the mean over a word's tokens instead of the sum.
        Returns:
            log p of each word, (R, W). [nats, negative]
        """
        assert isinstance(backbone, LanguageModel)
        state, token, word = self.picks
        chances = backbone.chances(states, state, token)  # (R, K)
        found = chances.new_zeros(len(states), len(self.words.ids)).index_add(1, word.to(chances.device), chances)
        counts = chances.new_tensor([len(ids) for ids in self.words.ids])
        return found / counts if by_length else found


def _state(firsts: Sequence[tuple[list[int], int]], begin: Sequence[int]) -> int:
    """Find the state after some tokens."""
    if not begin:
        return 0
    size = len(begin)
    return next(first + size - 1 for end, first in firsts if end[:size] == list(begin))


def _with_masks(batch: RaggedBatch, masks: Tensor, sizes: Sequence[int]) -> tuple[RaggedBatch, Tensor]:
    """Write every row out with so many masks at the place of its one; say where they are."""
    starts, names, ids = batch.layout.starts, batch.layout.names, batch.ids
    rows, places = list[Tensor](), list[int]()
    for row, mask in enumerate(masks.tolist()):
        for size in sizes:
            rows.append(torch.cat([ids[starts[row] : mask], ids[mask].repeat(size), ids[mask + 1 : starts[row + 1]]]))
            places.append(mask - starts[row])
    owners = None if names is None else [name for name in names for _ in sizes]
    wide = ragged(rows, names=owners)
    begins = torch.zeros(len(rows), dtype=torch.int64)
    begins[wide.index] = torch.tensor(wide.layout.starts[:-1])
    counts = list(sizes) * batch.layout.rows
    found = [begin + place + torch.arange(size) for begin, place, size in zip(begins, places, counts, strict=True)]
    return wide, torch.cat(found)


def mask_places(batch: RaggedBatch, mask: int | None) -> Tensor:
    """Find the masks of a batch.

    Args:
        batch: R rows.
        mask: id of the mask token.
    Returns:
        (masks,), which tokens.
    """
    return (batch.ids == torch.tensor(-1 if mask is None else mask)).nonzero()[:, 0]
