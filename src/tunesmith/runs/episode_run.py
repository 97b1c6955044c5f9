"""A finished run of meta-training: what it scored, and answers to new tasks from a few examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunesmith.core.errors import CheckpointError, DataError
from tunesmith.core.files import read_json
from tunesmith.data.examples import check_text
from tunesmith.data.images import ImageLimits, decode
from tunesmith.fewshot.episodes import Episodes
from tunesmith.fewshot.learners.base import Learned
from tunesmith.fewshot.rows import Rows
from tunesmith.fewshot.scoring import answers
from tunesmith.methods.store import load_delta, read_tensors
from tunesmith.recipe.episodes import CheckedEpisodes, load_episodes
from tunesmith.runs.answering import Prediction, device_here
from tunesmith.runs.episode_model import EpisodeModel, open_episode_model
from tunesmith.runs.folder import BASE, FINGERPRINT, unfinished


class EpisodeRun:
    """A run folder of `tunesmith episodes`. The model is loaded when it is first needed.

    Args:
        folder: that `episodes` left.
    Raises:
        CheckpointError: not a complete run folder of meta-training.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser().absolute()
        if not self.folder.is_dir():
            raise CheckpointError(f"there is no run folder {self.folder}. `tunesmith episodes` makes one.")
        if (said := unfinished(self.folder)) and not (self.folder / FINGERPRINT).is_file():
            raise CheckpointError(said)
        self.fingerprint: dict[str, Any] = read_json(self.folder / FINGERPRINT, dict)
        self.summary: dict[str, Any] = read_json(self.folder / "metrics.json", dict)
        if "learner" not in self.summary:
            raise CheckpointError(
                f"{self.folder} is no run of meta-training. A run of `tunesmith train` is opened by tunesmith.Run.load."
            )

    @classmethod
    def load(cls, folder: str | Path) -> EpisodeRun:
        """Open a run folder.

        Args:
            folder: that `episodes` left.
        Returns:
            The run.
        """
        return cls(folder)

    def report(self) -> Path:
        """Return where the report is: one HTML file that opens offline."""
        return self.folder / "report.html"

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Accuracy by shape of episode, each with value, low and high."""
        found: dict[str, dict[str, float]] = self.summary["metrics"]
        return found

    @cached_property
    def recipe(self) -> CheckedEpisodes:
        """The run's recipe; where the device that trained is not here, another one answers, and that is said."""
        found = load_episodes(self.folder / "recipe.yaml")
        changed = device_here(self.folder, found.recipe.model.device)
        return load_episodes(self.folder / "recipe.yaml", changed) if changed else found

    @cached_property
    def _opened(self) -> tuple[EpisodeModel, Learned]:
        base = self.folder / BASE
        model = open_episode_model(self.recipe, base if base.is_dir() else None)
        recorded = self.fingerprint.get("base_model_hash")
        if model.base_hash != recorded:
            raise CheckpointError(
                f"{self.folder} was trained on another base: base_model_hash is {model.base_hash}, the run recorded "
                f"{recorded}. Load the model it was trained on ({self.fingerprint.get('base_model')})."
            )
        _, delta = load_delta(self.folder / "delta", model.seams)
        head = self.recipe.learner.head(model.width)
        if head.state_dict():
            try:
                head.load_state_dict(read_tensors(self.folder / "head.safetensors"))
            except RuntimeError:
                raise CheckpointError(f"{self.folder / 'head.safetensors'} does not fit the run's learner.") from None
        delta.train(False)
        return model, Learned(delta, head.to(next(model.model.parameters()).device))

    def answer(self, examples: Mapping[str, Sequence[Any]], queries: Sequence[Any]) -> list[Prediction]:
        """Learn a new task from a few examples of each label and answer queries.

        Args:
            examples: label to its examples, one at least: texts; or images, as paths or arrays (height, width).
            queries: of the same kind.
        Returns:
            One prediction per query, over the labels given.
        Raises:
            DataError: fewer than two labels, a label without example, no query, or a row that cannot be read.
        """
        if len(examples) < 2:
            raise DataError(f"{len(examples)} labels; a task to answer has at least 2, each with an example.")
        empty = [label for label, rows in examples.items() if isinstance(rows, str | Path) or not len(rows)]
        if empty:
            raise DataError(f"label '{empty[0]}': give a list of one example or more.")
        if isinstance(queries, str | Path) or not len(queries):
            raise DataError("queries: give a list of one row or more.")
        model, learned = self._opened
        given = [row for rows in examples.values() for row in rows]
        rows = model.rows(self._content([*given, *queries]))
        ways = torch.tensor([way for way, own in enumerate(examples.values()) for _ in own])
        logits = self._logits(learned, rows, ways, len(queries), len(examples))
        return [Prediction.of(row, list(examples)) for row in logits.softmax(-1).tolist()]

    def _logits(self, learned: Learned, rows: Rows, ways: Tensor, asked: int, count: int) -> Tensor:
        numbers = torch.arange(len(ways) + asked)[None]
        query = numbers[:, len(ways) :]
        episode = Episodes(numbers[:, : len(ways)], ways[None], query, torch.zeros_like(query), count)
        return answers(self.recipe.learner, learned, rows, episode)[0]

    def _content(self, rows: Sequence[Any]) -> Any:
        """Read rows as the model reads them."""
        own = self.recipe.recipe.model
        if not self.recipe.recipe.images:
            for number, text in enumerate(rows, 1):
                check_text(text, f"row {number}")
                if not text.strip():
                    raise DataError(f"row {number} is empty: give at least one visible character.")
            return list(rows)
        channels = 3 if own.colour else 1
        return np.stack([_image(row, own.size, channels) for row in rows])


def _image(row: Any, size: int, channels: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Read one image from a file, or take its pixels."""
    if isinstance(row, str | Path):
        path = Path(row).expanduser()
        if not path.is_file():
            raise DataError(f"there is no image file {path}.")
        if path.stat().st_size > ImageLimits().file_bytes:
            raise DataError(f"{path}: more than {ImageLimits().file_bytes:,} bytes. Make the image smaller.")
        return decode(path.read_bytes(), str(path), size, channels)
    pixels = np.asarray(row)
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    if pixels.dtype != np.uint8 or pixels.shape != (channels, size, size):
        raise DataError(
            f"an image of shape {pixels.shape} and type {pixels.dtype}; the run reads uint8 of ({channels}, {size}, "
            f"{size}), or image files of any size."
        )
    return pixels
