"""Edits of label words by data: words of the training texts that the model gives to a label's rows above others."""

from __future__ import annotations

import re
from collections import Counter
from typing import ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.prompts.prompt import Prompt
from tunesmith.recipe.prompt import spelling
from tunesmith.search.edits.base import Edit
from tunesmith.search.sources import Sources, with_words

_WORD = re.compile(r"[^\W\d_]{3,}")


@register("edits")
class LabelWords(Edit):
    """Let a word stand for a label that the model finds likelier behind the label's training rows than behind others.

    score(w, c) = mean over rows of c of log p(w | row) - mean over the other rows

    Source: likelihood ratio of label words: Schick et al. 2020 (PETAL), arXiv:2010.13641. Differs: candidates are words
        of the training texts and label names, and the model is asked once, with the prompt that comes first.
    """

    name: ClassVar[str] = "label-words"
    paper: ClassVar[str] = "Schick et al. 2020, arXiv:2010.13641"

    candidates: int = setting(12, "Words per label that the model is asked about.", unit="count", ge=1)
    most_words: int = setting(120, "Words in all that the model is asked about.", unit="count", ge=2)
    rows: int = setting(64, "Training rows that it is asked with, of every label alike.", unit="count", ge=2)
    best: int = setting(6, "Of a label's so many best words one is drawn, a better one more often.", unit="count", ge=1)
    every: float = setting(0.4, "How often all labels get a word at once.", unit="fraction", ge=0, le=1)
    together: int = setting(2, "Words that stand for a label together, at most.", unit="count", ge=1)

    def propose(self, prompt: Prompt, sources: Sources, draw: np.random.Generator) -> Prompt | None:
        """Give a label another word, one more, or one behind its name; or give every label one."""
        if self.name not in sources.seen:
            sources.seen[self.name] = self._ranked(prompt, sources)
        ranked = sources.seen[self.name]
        if not all(len(words) >= len(sources.labels) for words in ranked.values()):
            return None  # the model knows too few of the words
        if draw.random() < self.every:
            found = dict[str, list[str]]()
            order = draw.permutation(sources.labels).tolist()
            for label in sorted(order, key=lambda one: one not in sources.aimed):  # the best words go to these
                taken = {word for words in found.values() for word in words}
                found[label] = [self._drawn([word for word in ranked[label] if word not in taken], draw)]
            return prompt.changed(label_words={label: found[label] for label in sources.labels})
        label = sources.drawn(sources.labels, draw)
        word = self._drawn(ranked[label], draw)
        before = [one for one in prompt.words(label) if one != word]
        ways = [[word], [*before[: self.together - 1], word], [f"{label.replace('_', ' ').strip()} {word}"]]
        return with_words(prompt, sources.labels, label, ways[int(draw.integers(len(ways)))])

    def _drawn(self, words: list[str], draw: np.random.Generator) -> str:
        """Draw one of the best, a better one more often."""
        chances = 1 / np.arange(1, len(words[: self.best]) + 1)
        return str(draw.choice(words[: self.best], p=chances / chances.sum()))

    def _ranked(self, prompt: Prompt, sources: Sources) -> dict[str, list[str]]:
        """Order the candidates for every label, the best first."""
        words, rows = self._words(sources), sources.sample(max(self.rows, len(sources.labels)))
        if len(words) < 2:
            return {label: [] for label in sources.labels}
        listed = prompt.listed(sources.labels).replace("{", "{{").replace("}", "}}")
        template = prompt.template.replace("{labels}", listed)
        plain = prompt.changed(label_words={}, label_descriptions={}, template=template)
        table = sources.score(plain, [sources.rows[row] for row in rows], words)  # (rows, words)
        found = {}
        for code, label in enumerate(sources.labels):
            own = sources.truth[rows] == code
            ratio = table[own].mean(0) - table[~own].mean(0) if own.any() else np.zeros(len(words))
            found[label] = [words[place] for place in np.argsort(-ratio, kind="stable")]
        return found

    def _words(self, sources: Sources) -> list[str]:
        """Collect words: label names, and those of the training texts that a label's rows have more often than others.

        log odds: log((n_wc + 1) / (n_c + 2)) - log((n_w - n_wc + 1) / (n - n_c + 2)), counting rows
        """
        counts = [Counter[str]() for _ in sources.labels]
        for row, code in zip(sources.rows, sources.truth, strict=True):
            counts[code].update({word.lower() for word in _WORD.findall(row["text"])})
        sizes, every = np.bincount(sources.truth, minlength=len(counts)), sum(counts, Counter[str]())
        chosen = {spelling(label): label.replace("_", " ").strip() for label in sources.labels}
        ranked = []
        for code, own in enumerate(counts):
            rest = len(sources.truth) - sizes[code]
            odds = {
                word: np.log((n + 1) / (sizes[code] + 2)) - np.log((every[word] - n + 1) / (rest + 2))
                for word, n in own.items()
            }
            ranked.append(sorted(odds, key=lambda word: (-odds[word], word))[: self.candidates])
        for place in range(self.candidates):
            for words in ranked:
                if place < len(words) and len(chosen) < self.most_words:
                    chosen.setdefault(spelling(words[place]), words[place])
        return sources.told_apart(list(chosen.values()))
