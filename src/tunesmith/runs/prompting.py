"""Score prompts with one model: many prompts, the model opened once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import torch

from tunesmith.core.arrays import Array
from tunesmith.core.errors import DataError, RecipeError
from tunesmith.models.backbone import length_sorted, pool
from tunesmith.models.layout import ragged
from tunesmith.models.placing import widest
from tunesmith.prompts.demonstrating import Demonstrator
from tunesmith.prompts.demonstrations.base import dealt
from tunesmith.prompts.prompt import Prompt
from tunesmith.recipe.loading import Checked, load_recipe
from tunesmith.recipe.schema import ModelSettings
from tunesmith.runs.session import Session, open_session
from tunesmith.tasks.prompt_classification import PromptClassification

Row = Mapping[str, str]
_TOKENS, _ROWS = 1024, 64  # of one batch
_ASKED = 16  # rows that a demonstration is rated on


class PromptScorer:
    """A model that scores labels by prompts. The delta in use takes part; a scorer that was opened has none.

    Args:
        session: of the model, its task prompt-classification.
        seed: of demonstrations that are drawn.
    """

    def __init__(self, session: Session, seed: int = 0) -> None:
        if not isinstance(session.task, PromptClassification):
            raise RecipeError(f"task: prompts are scored by prompt-classification, not by {session.task.name}.")
        self.session, self.seed = session, seed
        self._task: PromptClassification = session.task

    @classmethod
    def open(cls, settings: Checked | ModelSettings | str) -> Self:
        """Load a model.

        Args:
            settings: a checked recipe of the task prompt-classification, a model's settings, or its name or folder.
        Returns:
            The scorer.
        Raises:
            TunesmithError: the model cannot be loaded, or the recipe is of another task.
        """
        if not isinstance(settings, Checked):
            model = {"name": settings} if isinstance(settings, str) else settings.model_dump()
            settings = load_recipe({"task": "prompt-classification", "model": model, "data": {"train": "none"}})
        return cls(open_session(settings), settings.recipe.seed)

    def log_probabilities(
        self,
        prompt: Prompt,
        rows: Sequence[Row],
        labels: Sequence[str],
        demonstrations_from: Sequence[tuple[Row, str]] = (),
    ) -> Array:
        """Score labels.

        Args:
            prompt: to ask with.
            rows: a value for every field of the prompt each.
            labels: in the order of the columns of the answer.
            demonstrations_from: rows and labels that may be shown; a row itself never is.
        Returns:
            log p of every label, (rows, labels); a row's probabilities add up to 1.
        Raises:
            RecipeError: a prompt that does not fit the model or the rows.
            DataError: no rows, fewer than two labels, or fewer rows to show than demonstrations.
        """
        _check(rows, labels)
        prompt.check(list(rows[0]))
        task = self._task.bound(prompt, self.session.tokenizer, self.session.max_tokens, labels)
        shown = None
        if prompt.demonstrates:
            given = [row for row, _ in demonstrations_from], [label for _, label in demonstrations_from]
            shown = self.demonstrator(prompt, *given).shown(rows)
        tokens, _ = task.labels.reader.encode(rows, shown)
        device = self.session.backbone.device
        head = task.head(self.session.backbone.width, len(labels)).to(device, widest(device)).eval()
        task.start_from_texts(head, self.session.backbone, self.session.tokenizer)
        found = np.zeros((len(rows), len(labels)))
        training = self.session.backbone.model.training
        self.session.backbone.model.eval()
        with torch.no_grad():
            for numbers in length_sorted(tokens.lengths.tolist(), _TOKENS, _ROWS):
                batch = ragged([torch.from_numpy(tokens[number]) for number in numbers], numbers)
                scores = head(task.read(self.session.backbone, batch).to(widest(device)))
                found[batch.index.numpy()] = scores.log_softmax(-1).cpu().numpy()
        self.session.backbone.model.train(training)
        return found

    def demonstrator(self, prompt: Prompt, rows: Sequence[Row], labels: Sequence[str]) -> Demonstrator:
        """Make what chooses demonstrations with this model's vectors and probabilities.

        Args:
            prompt: with how many, and how they are chosen.
            rows: that may be shown.
            labels: of the rows.
        Returns:
            The chooser.
        Raises:
            DataError: fewer rows than demonstrations.
        """

        def rate(numbers: Sequence[int]) -> Array:
            return self._usefulness(prompt, rows, labels, numbers)

        return Demonstrator(prompt, rows, labels, self.seed, self.embed, rate)

    def _usefulness(self, prompt: Prompt, rows: Sequence[Row], labels: Sequence[str], numbers: Sequence[int]) -> Array:
        """Show each of some rows alone to a few others; return the mean log p of their labels."""
        names = sorted(set(labels) | set(prompt.label_words))
        drawn = np.random.default_rng(self.seed + 1).permutation(len(rows))
        asked = dealt([int(row) for row in drawn], labels)[:_ASKED]
        right = [names.index(labels[row]) for row in asked]
        found = np.zeros(len(numbers))
        for place, number in enumerate(numbers):
            example = {**{name: rows[number][name] for name in prompt.shown_fields}, "label": labels[number]}
            alone = prompt.changed(demonstrations={"count": 1, "examples": [example]})
            scores = self.log_probabilities(alone, [rows[row] for row in asked], names)
            found[place] = scores[range(len(asked)), right].mean()
        return found

    def tokens(self, prompt: Prompt, row: Row) -> int:
        """Count the tokens of a row's prompt, demonstrations left out, the words of the answer not counted. [tokens]

        Args:
            prompt: to fill in.
            row: a value for every field.
        """
        labels = list(prompt.label_words) or ["a", "b"]
        reader = self._task.bound(prompt, self.session.tokenizer, self.session.max_tokens, labels).labels.reader
        return reader.count(reader.fill(row))

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Array:
        """Turn texts into vectors: the mean of the untuned model's hidden states.

        Args:
            texts: any.
        Returns:
            (texts, D).
        """
        session, backbone = self.session, self.session.backbone
        found, before = np.zeros((len(texts), backbone.width)), backbone.seams.routing.active
        rows = session.tokenizer(list(texts), truncation=True, max_length=session.max_tokens)["input_ids"]
        backbone.seams.use(None)
        for numbers in length_sorted([len(row) for row in rows], _TOKENS, _ROWS):
            batch = ragged([rows[number] for number in numbers], numbers)
            vectors = pool(backbone.read_only(batch), batch.layout, "mean")
            found[batch.index.numpy()] = vectors.cpu().double().numpy()
        backbone.seams.use(before)
        return found


def _check(rows: Sequence[Row], labels: Sequence[str]) -> None:
    if not rows:
        raise DataError("there is no row to score; give at least one.")
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise DataError(f"labels {list(labels)!r}: at least two are needed, each once.")
