"""From a recipe to what ranking and searching prompts need: a scorer, and rows that are kept apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.arrays import Array, Codes
from tunesmith.core.errors import DataError, RecipeError
from tunesmith.core.registry import find
from tunesmith.core.seeds import derived
from tunesmith.data.splitting import stratified_share
from tunesmith.evaluation.statistics import Bootstrap
from tunesmith.prompts.prompt import Prompt
from tunesmith.recipe.loading import Checked, load_recipe
from tunesmith.runs.prompting import PromptScorer
from tunesmith.runs.session import Reading
from tunesmith.search.ranking import Judged
from tunesmith.search.sources import Row
from tunesmith.tasks.prompt_classification import PromptClassification
from tunesmith.training.corpus import Corpus, Split, load_corpus

_TASK = "prompt-classification"
FEW = 8  # rows below which nothing can be chosen and measured


@dataclass
class Table:
    """Rows of a split with their classes.

    Args:
        rows: values by column.
        truth: (rows,), class codes.
    """

    rows: list[Row]
    truth: Codes

    @classmethod
    def of(cls, split: Split) -> Table:
        """Take a split's rows out of their file.

        Args:
            split: any.
        Returns:
            The table.
        """
        return cls(list(split.examples.rows(split.index)), split.labels)

    def some(self, numbers: np.ndarray[Any, Any]) -> Table:
        """Take some of the rows.

        Args:
            numbers: which.
        Returns:
            They alone, in that order.
        """
        return Table([self.rows[number] for number in numbers], self.truth[numbers])


@dataclass
class Opened:
    """A recipe's model and rows. The test split is not read.

    Args:
        checked: the recipe.
        scorer: its model.
        labels: of the task.
        train: rows that proposals may read, and demonstrations may show.
        validation: rows that prompts are scored on.
        corpus: all of it, with its warnings.
    """

    checked: Checked
    scorer: PromptScorer
    labels: list[str]
    train: Table
    validation: Table
    corpus: Corpus

    @property
    def prompt(self) -> Prompt:
        """The recipe's own prompt."""
        return Prompt.of(self.checked.recipe.prompt)

    def judged(self, metric: str | None) -> Judged:
        """Settle how rows are scored.

        Args:
            metric: by name; the task's first when None.
        Returns:
            Metric and bootstrap of the recipe.
        Raises:
            RecipeError: no such metric, or one that does not read labels.
        """
        name, settings = metric or self.checked.task.metrics[0], self.checked.recipe.evaluation
        found = find("metrics", name)
        if found.reads != "labels":
            raise RecipeError(f"metric: {name} reads {found.reads}, and prompts are scored by labels. Try accuracy.")
        seed = derived(self.checked.recipe.seed, "bootstrap")
        return Judged(found(), Bootstrap(settings.resamples, settings.confidence, seed))

    def score(self, prompt: Prompt, rows: Sequence[Row], labels: Sequence[str]) -> Array:
        """Score labels by a prompt; demonstrations come from training rows.

        Args:
            prompt: any.
            rows: values by column.
            labels: or words in their place.
        Returns:
            Log probabilities, (rows, labels).
        """
        shown = [(row, self.labels[code]) for row, code in zip(self.train.rows, self.train.truth, strict=True)]
        return self.scorer.log_probabilities(prompt, rows, labels, shown)


def open_prompts(recipe: str | Path | Mapping[str, Any], overrides: Sequence[str]) -> Opened:
    """Open a recipe of the task prompt-classification, its test split left out.

    Args:
        recipe: a YAML file, or a mapping with the same keys.
        overrides: `key=value` texts that win over the recipe.
    Returns:
        Model and rows.
    Raises:
        RecipeError: another task, or a verbalizer without words.
        DataError: too few validation rows.
    """
    checked = _without_test_file(load_recipe(recipe, overrides))
    check_scorable(checked)
    scorer = PromptScorer.open(checked)
    corpus = read_rows(checked, scorer.session)
    corpus.splits.pop("test", None)
    Prompt.of(checked.recipe.prompt).check_labels(corpus.label_names)
    held = len(corpus.splits["validation"].labels) if "validation" in corpus.splits else 0
    if held < FEW:
        raise DataError(
            f"validation holds {held} rows; at least {FEW} are needed to score prompts. Raise data.validation, or give "
            "a file."
        )
    train, validation = (Table.of(corpus.splits[name]) for name in ("train", "validation"))
    return Opened(checked, scorer, corpus.label_names, train, validation, corpus)


def check_scorable(checked: Checked) -> None:
    """Refuse a recipe without a prompt that could be scored without training.

    Args:
        checked: the recipe.
    Raises:
        RecipeError: another task, or a verbalizer that starts at training rows and reads no words.
    """
    task = checked.task
    if not isinstance(task, PromptClassification):
        raise RecipeError(f"task: {task.name} has no prompt that could be scored without training. Set task={_TASK}.")
    if task.kind.from_rows:
        raise RecipeError(
            f"task.verbalizer: {task.verbalizer} starts each label at its training rows, and a prompt is scored by "
            "words. Take words."
        )


def _without_test_file(checked: Checked) -> Checked:
    """Let a test file be unread; a share of train stays held out, or its rows would choose prompts."""
    data = checked.recipe.data
    if not isinstance(data.test, str):
        return checked
    return replace(checked, recipe=checked.recipe.model_copy(update={"data": data.model_copy(update={"test": None})}))


def read_rows(checked: Checked, session: Reading) -> Corpus:
    """Read a recipe's labelled rows as they stand in its files.

    Args:
        checked: the recipe.
        session: its template says which columns are read.
    Returns:
        The splits.
    Raises:
        DataError: anything wrong with the data.
    """
    recipe = checked.recipe
    return load_corpus(
        recipe.data, session.template, session.tokenizer, session.max_tokens, recipe.split_seed, checked.folder
    )


def apart(table: Table, share: float, most: int | None, seed: int) -> tuple[Table, Table]:
    """Part rows into those that choose and those that measure what was chosen.

    Args:
        table: validation rows.
        share: that measures. [fraction]
        most: rows that choose, at most; all when None. [count]
        seed: of the draw.
    Returns:
        Rows that choose, in a drawn order in which every label comes early, and rows that measure.
    """
    kept, held = stratified_share(table.truth, share, derived(seed, "measuring rows"))
    draw = np.random.default_rng(derived(seed, "choosing rows"))
    kept = draw.permutation(kept)
    turn = np.zeros(len(kept), np.int64)
    for code in np.unique(table.truth[kept]):
        own = np.flatnonzero(table.truth[kept] == code)
        turn[own] = np.arange(len(own))
    return table.some(kept[np.argsort(turn, kind="stable")][:most]), table.some(held)
