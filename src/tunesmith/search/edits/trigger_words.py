"""Edits by the gradient: a word of the template gives way to one that would raise the likelihood of the truth."""

from __future__ import annotations

import re
from typing import ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.prompts.prompt import Prompt
from tunesmith.search.edits.base import Edit
from tunesmith.search.phrases import Phrase, cut, free, joined
from tunesmith.search.sources import Sources

_WORD = re.compile(r"[^\W\d_]+")


@register("edits")
class TriggerWords(Edit):
    """Insert a word, or take one of the template, and put in its place what the first-order change of the loss prefers.

    w' = argmax_w (e_w - e_old) . grad of log p(truth) at the place of the old word

    The candidate is then scored like any other.

    Source: Shin et al. 2020 (AutoPrompt), arXiv:2010.15980; Ebrahimi et al. 2018 (HotFlip), arXiv:1712.06751.
    """

    name: ClassVar[str] = "trigger-words"
    paper: ClassVar[str] = "Shin et al. 2020, arXiv:2010.15980"

    rows: int = setting(16, "Training rows that the gradient is taken on.", unit="count", ge=1)
    best: int = setting(10, "Of so many words that the gradient prefers one is drawn.", unit="count", ge=1)

    def able(self, sources: Sources) -> bool:
        """Only with a model whose embeddings have gradients, and words of one token."""
        return sources.substitutes is not None and len(sources.vocabulary) > 1

    def propose(self, prompt: Prompt, sources: Sources, draw: np.random.Generator) -> Prompt | None:
        """Exchange one word."""
        assert sources.substitutes is not None
        template, places = self._places(prompt, sources, draw)
        if not places:
            return None
        first, last = places[int(draw.integers(len(places)))]
        word = template[first:last]
        other = next(one for one in sources.vocabulary if one != word)

        def written(new: str) -> Prompt:
            return prompt.changed(template=template[:first] + new + template[last:])

        pool = sources.aimed_rows()
        rows = pool[draw.choice(len(pool), min(self.rows, len(pool)), replace=False)]
        shown, truth = [sources.rows[row] for row in rows], sources.truth[rows]
        found = sources.substitutes(written(word), written(other), shown, truth, self.best)
        better = [new for new in found if new != word]
        return written(str(draw.choice(better))) if better else None

    @staticmethod
    def _places(prompt: Prompt, sources: Sources, draw: np.random.Generator) -> tuple[str, list[tuple[int, int]]]:
        """Find the words of one token in the template, a drawn new one among them at times."""
        phrases, known = cut(prompt.template), set(sources.vocabulary)
        if not free(phrases) or draw.random() < 0.3:
            place = int(draw.choice([n for n, one in enumerate(phrases) if one.text.startswith("{")]))
            before = "" if place == 0 or phrases[place - 1].text[-1:].isspace() else " "
            phrases.insert(place, Phrase(f"{before}{draw.choice(sources.vocabulary)} ", False))
        template, found, start = joined(phrases), list[tuple[int, int]](), 0
        for phrase in cut(template):
            spans = [] if phrase.fixed else [match.span() for match in _WORD.finditer(phrase.text)]
            found += [(start + a, start + b) for a, b in spans if phrase.text[a:b].lower() in known]
            start += len(phrase.text)
        return template, found
