"""Words that a masked language model puts in the place of others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.data.personal import PLACEHOLDER
from tunesmith.runs.augmentations.base import WrittenAhead

_CORE = re.compile(r"\w(?:.*\w)?")  # a word without the marks around it
_BATCH = 32  # texts that the model reads at once


@register("augmentations")
class MaskedWords(WrittenAhead):
    """Hide some words of every training text, and let a masked language model fill the gaps, before training.

    Of the words that are one token of the model, the most likely ones but the hidden one itself are drawn from by their
    probabilities. The label is not shown, so a word that makes the label may go: keep the share small.

    Source: Garg and Ramakrishnan 2020, arXiv:2004.01970, replacement. Differs: no classifier is attacked.
    """

    name: ClassVar[str] = "masked-words"
    paper: ClassVar[str] = "Garg and Ramakrishnan 2020, arXiv:2004.01970"
    folders: ClassVar[tuple[str, ...]] = ("model",)

    model: str = setting("", "Masked language model: a folder or a hub name; needed.")
    share: float = setting(0.15, "Share of the words that are hidden; one at least.", unit="fraction", gt=0, le=1)
    likeliest: int = setting(10, "Words that each gap is filled from.", unit="count", ge=1, le=1000)

    @property
    def lacks(self) -> str:
        """Say which setting is missing."""
        return "" if self.model else "model: a masked language model, a folder or a hub name"

    def write(self, texts: Sequence[str], seed: int) -> list[list[str]]:
        """Hide and fill."""
        filler = _Filler(self.model, self.likeliest)
        hidden = [
            _Hidden(text, self.share, np.random.default_rng([seed, number, turn]))
            for number, text in enumerate(texts)
            for turn in range(self.variants)
        ]
        for start in range(0, len(hidden), _BATCH):
            filler.fill(hidden[start : start + _BATCH])
        forms = [one.text for one in hidden]
        return [forms[start : start + self.variants] for start in range(0, len(forms), self.variants)]


class _Hidden:
    """A text with some of its words hidden.

    Args:
        text: as it is.
        share: of the words. [fraction]
        draw: the numbers to draw from.
    """

    def __init__(self, text: str, share: float, draw: np.random.Generator) -> None:
        self.words, self.draw = text.split(), draw
        cores = [None if PLACEHOLDER.search(word) else _CORE.search(word) for word in self.words]
        able = [place for place, core in enumerate(cores) if core is not None]
        count = min(len(able), max(1, round(share * len(self.words))))
        self.places = sorted(draw.choice(able, count, replace=False).tolist()) if able else []
        self._cores = {place: core.span() for place in self.places if (core := cores[place]) is not None}

    def core(self, place: int) -> str:
        """Return a hidden word without the marks around it."""
        first, last = self._cores[place]
        return self.words[place][first:last]

    def with_gaps(self, mask: str) -> str:
        """Return the text with a mask in the place of every hidden word."""
        return " ".join(
            self._around(place, mask) if place in self._cores else word for place, word in enumerate(self.words)
        )

    def put(self, place: int, word: str) -> None:
        """Fill a gap, written with a capital letter where the hidden word was."""
        self.words[place] = self._around(place, word.capitalize() if self.core(place)[:1].isupper() else word)

    def _around(self, place: int, word: str) -> str:
        first, last = self._cores[place]
        return self.words[place][:first] + word + self.words[place][last:]

    @property
    def text(self) -> str:
        """The text as it is now."""
        return " ".join(self.words)


class _Filler:
    """A masked language model that fills gaps.

    Args:
        name: folder or hub name.
        likeliest: words that a gap is filled from. [count]
    """

    def __init__(self, name: str, likeliest: int) -> None:
        from tunesmith.models.loading import choose_device, load_model, load_tokenizer, locate

        source = locate(name)
        self.device, self.likeliest = choose_device("auto"), likeliest
        self.model, self.tokenizer = load_model(source, self.device, opens="masked"), load_tokenizer(source)
        self.words = dict(_whole_words(self.tokenizer))

    def fill(self, hidden: Sequence[_Hidden]) -> None:
        """Fill the gaps of some texts; a gap beyond the model's length, and one that no word is for, stays filled."""
        import torch

        mask = self.tokenizer.mask_token
        read = self.tokenizer(
            [one.with_gaps(mask) for one in hidden], padding=True, truncation=True, return_tensors="pt"
        ).to(self.device)
        allowed = torch.tensor(list(self.words), device=self.device)
        with torch.no_grad():
            scores = self.model(**read).logits[..., allowed].float()
        for row, one in enumerate(hidden):
            gaps = (read["input_ids"][row] == self.tokenizer.mask_token_id).nonzero()[:, 0].tolist()
            for place, gap in zip(one.places, gaps, strict=False):
                self._choose(one, place, scores[row, gap], allowed)

    def _choose(self, one: _Hidden, place: int, scores: Any, allowed: Any) -> None:
        best = scores.topk(min(self.likeliest + 1, len(scores)))
        words = [self.words[int(allowed[number])] for number in best.indices]
        chances = np.exp(best.values.cpu().double().numpy() - float(best.values[0]))
        kept = [number for number, word in enumerate(words) if word.lower() != one.core(place).lower()]
        kept = kept[: self.likeliest]
        if kept:
            own = chances[kept] / chances[kept].sum()
            one.put(place, words[kept[int(one.draw.choice(len(kept), p=own))]])


def _whole_words(tokenizer: Any) -> Iterator[tuple[int, str]]:
    """Yield the tokens that are a whole word, with the word."""
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    marked = any(token[:1] in "Ġ▁" for token in tokens if token)  # tokens that begin a word are marked, or others are
    special = set(tokenizer.all_special_ids)
    for number, token in enumerate(tokens):
        begins = token[:1] in "Ġ▁" if marked else not token.startswith("##")
        word = tokenizer.decode([number]).strip()
        if begins and number not in special and word.isalpha():
            yield number, word
