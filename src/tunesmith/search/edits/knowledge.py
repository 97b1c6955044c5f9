"""Edits from knowledge: label names and descriptions, and the user's glossary."""

from __future__ import annotations

import re
from typing import ClassVar

import numpy as np

from tunesmith.core.registry import register
from tunesmith.prompts.prompt import Prompt
from tunesmith.search.edits.base import Edit
from tunesmith.search.sources import Sources, with_words

_PIECES = re.compile(r"[^\W_]+")
_PLAIN = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "has", "have", "how", "in", "is", "it", "its",
    "not", "of", "on", "or", "that", "the", "their", "this", "to", "was", "what", "when", "where", "which", "who",
    "with", "your",
})  # fmt: skip


@register("edits")
class Knowledge(Edit):
    """Use what is known without data: words of a label's name, its description and the glossary; all labels listed."""

    name: ClassVar[str] = "knowledge"

    def propose(self, prompt: Prompt, sources: Sources, draw: np.random.Generator) -> Prompt | None:
        """Take words for a label, list the labels, or tell what terms mean."""
        ways = [self._words, self._listed, *([self._background] if self._told(sources) else [])]
        return ways[int(draw.integers(len(ways)))](prompt, sources, draw)

    def _words(self, prompt: Prompt, sources: Sources, draw: np.random.Generator) -> Prompt | None:
        label = sources.drawn(sources.labels, draw)
        said = sources.glossary.meanings.get(label, "") or prompt.label_descriptions.get(label, "")
        told = [word for word in map(str.lower, _PIECES.findall(said)) if word not in _PLAIN]
        names = [word.lower() for word in _PIECES.findall(label) if word.lower() not in _PLAIN]
        words = list(dict.fromkeys([label.replace("_", " ").strip().lower(), *names, *told,
                                    *sources.glossary.words.get(label, [])]))  # fmt: skip
        taken = int(draw.integers(1, min(2, len(words)) + 1))
        return with_words(prompt, sources.labels, label, draw.choice(words, taken, replace=False).tolist())

    def _listed(self, prompt: Prompt, sources: Sources, draw: np.random.Generator) -> Prompt | None:
        if "{labels}" in prompt.template:
            return prompt.changed(template=prompt.template.replace("{labels}", "").strip())
        forms = ("Choose one of: {labels}.", "It is one of {labels}.", "Labels: {labels}.")
        return prompt.changed(template=f"{draw.choice(forms)}\n{prompt.template}")

    def _background(self, prompt: Prompt, sources: Sources, draw: np.random.Generator) -> Prompt | None:
        if prompt.background:
            return prompt.changed(background="")
        return prompt.changed(background="\n".join(self._told(sources)))

    @staticmethod
    def _told(sources: Sources) -> list[str]:
        return [f"{term}: {said}" for term, said in sources.glossary.meanings.items()]
