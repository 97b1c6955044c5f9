"""What edits read: training rows, label names, the tokenizer's words, a glossary, and what a model says about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.arrays import Array, Codes
from tunesmith.core.errors import RecipeError
from tunesmith.prompts.prompt import Prompt
from tunesmith.recipe.lines import parse

Row = Mapping[str, str]
Scoring = Callable[[Prompt, Sequence[Row], Sequence[str]], Array]  # -> log probabilities, (rows, labels)
Substituting = Callable[[Prompt, Prompt, Sequence[Row], Codes, int], list[str]]
Writing = Callable[[str, int, int], list[str]]  # instruction, texts wanted, seed -> texts
_AIMED = 0.75  # how often a label that is aimed at is drawn instead of any


@dataclass(frozen=True)
class Glossary:
    """What a user knows about the words of a task.

    Args:
        words: words that may stand for a label or a term.
        meanings: of a label or a term, in a sentence.
    """

    words: dict[str, list[str]] = field(default_factory=dict)
    meanings: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path) -> Glossary:
        """Read a glossary file: YAML, a term to a sentence that says what it means, or to a list of words for it.

        Args:
            path: of the file.
        Returns:
            The glossary.
        Raises:
            RecipeError: no such file, or it holds something else.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise RecipeError(
                f"search.glossary: {path} cannot be read: {why}. Give a YAML file, a term to a sentence or to words."
            ) from None
        words, meanings = dict[str, list[str]](), dict[str, str]()
        for term, value in parse(text, str(path), "a glossary", "refund: money that is paid back")[0].items():
            if isinstance(value, str) and value.strip():
                meanings[str(term)] = value.strip()
            elif isinstance(value, list) and value and all(isinstance(one, str) and one.strip() for one in value):
                words[str(term)] = [one.strip() for one in value]
            else:
                raise RecipeError(
                    f"{path}: '{term}' is {value!r}. A glossary gives each term a sentence that says what it means, or "
                    "a list of words for it."
                )
        return cls(words, meanings)


@dataclass
class Sources:
    """What edits read. Nothing here comes from the rows that choose, or from test.

    Args:
        labels: of the task.
        rows: training rows, values by column.
        truth: (rows,), their classes.
        score: log probabilities of labels, or of words in their place; the search's budget pays for it.
        glossary: of the user; empty for none.
        vocabulary: whole words that are one token each.
        substitutes: words that would raise the likelihood of the truth in the place where two prompts differ, by the
            gradient; None for models that have none.
        write: of a text model; None where none was given.
        told_apart: leaves words out that the model does not know, or cannot tell from earlier ones.
        aimed: labels that edits change more often than others, and first; all alike when empty.
        seen: what an edit found out once.
    """

    labels: list[str]
    rows: list[Row]
    truth: Codes
    score: Scoring
    glossary: Glossary = field(default_factory=Glossary)
    vocabulary: list[str] = field(default_factory=list)
    substitutes: Substituting | None = None
    write: Writing | None = None
    told_apart: Callable[[Sequence[str]], list[str]] = list
    aimed: Sequence[str] = ()
    seen: dict[str, Any] = field(default_factory=dict)

    def drawn(self, among: Sequence[str], draw: np.random.Generator) -> str:
        """Draw the label that an edit changes: mostly one of those aimed at, otherwise any.

        Args:
            among: labels that may be drawn.
            draw: of what is drawn.
        Returns:
            The label.
        """
        aimed = [label for label in among if label in self.aimed]
        if aimed and draw.random() < _AIMED:
            return str(draw.choice(aimed))
        return str(draw.choice(among))

    def aimed_rows(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the numbers of the training rows of the labels aimed at; of all where none is."""
        codes = [self.labels.index(label) for label in self.aimed]
        found = np.flatnonzero(np.isin(self.truth, codes))
        return found if len(found) else np.arange(len(self.rows))

    def sample(self, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Choose training rows, of every label alike: the first of each, in turn.

        Args:
            count: so many at most. [count]
        Returns:
            Their numbers.
        """
        order = np.argsort(self.truth, kind="stable")
        places = np.concatenate([np.arange(n) for n in np.bincount(self.truth, minlength=len(self.labels))])
        turn = order[np.argsort(places, kind="stable")]
        return np.sort(turn[:count])


def with_words(prompt: Prompt, labels: Sequence[str], label: str, words: Sequence[str]) -> Prompt:
    """Give one label other words.

    Args:
        prompt: any.
        labels: all of them.
        label: the one.
        words: for it.
    Returns:
        The prompt in which every label has words.
    """
    every = {name: list(words) if name == label else prompt.words(name) for name in labels}
    return prompt.changed(label_words=every)
