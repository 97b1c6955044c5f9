"""A finished run: load it, predict, evaluate, look at its report."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from tunesmith.core.arrays import Array
from tunesmith.core.errors import CheckpointError, CompatibilityError, DataError
from tunesmith.core.files import hash_of, read_json
from tunesmith.core.seeds import derived
from tunesmith.data.audit import align_labels
from tunesmith.data.cleaned import clean_texts, read_cleaned
from tunesmith.data.examples import Columns, Examples, find_reader, from_texts
from tunesmith.data.splitting import Index
from tunesmith.data.tokens import TokenRows
from tunesmith.evaluation.metrics.base import Metric
from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.statistics import (
    Bootstrap,
    Difference,
    Estimate,
    Result,
    estimate,
    metrics_by_name,
    paired_difference,
)
from tunesmith.methods.store import load_delta, read_tensors
from tunesmith.recipe.loading import Checked, load_recipe
from tunesmith.runs.answering import Answering, Prediction, device_here
from tunesmith.runs.calibrating import Calibrating, calibrate, forget_calibration, read_calibration
from tunesmith.runs.folder import (
    FINGERPRINT,
    LEARNED,
    best_folder,
    count_members,
    is_meta_trained,
    member_folder,
    unfinished,
)
from tunesmith.runs.opening import family_of, metric_names, score_texts
from tunesmith.runs.openings import note_opening, read_openings, worded
from tunesmith.runs.session import Session, open_session
from tunesmith.runs.speaking import Speaking
from tunesmith.tasks.ensemble import Ensemble
from tunesmith.tasks.heads.base import load_head
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.checkpoints import look
from tunesmith.training.cleaning import changes_of
from tunesmith.training.corpus import placed_rows
from tunesmith.training.reading import read_labelled

_log = logging.getLogger("tunesmith")


class Run(Speaking, Answering):
    """A run folder. The model is loaded when it is first needed.

    A run that was killed loads too: `unfinished` says how far it got, and only what needs its model is refused.

    Args:
        folder: that `train` left.
        epoch: answer with the state after this one of the best epochs (training.keep_best); with what the run chose
            when empty.
    Raises:
        CheckpointError: not a complete run folder, or the epoch's state was not kept.
    """

    def __init__(self, folder: str | Path, epoch: int | None = None) -> None:
        if not isinstance(folder, str | Path):
            raise CheckpointError(f"a run is given by its folder, not by {repr(folder)[:80]}.")
        self.folder = Path(folder).expanduser().absolute()
        if not self.folder.is_dir():
            raise CheckpointError(f"there is no run folder {self.folder}. `tunesmith train` makes one.")
        self.unfinished = unfinished(self.folder)
        self.fingerprint: dict[str, Any]
        self.labels: list[str]
        self.summary: dict[str, Any]
        if not self.unfinished or (self.folder / FINGERPRINT).is_file():
            self._read()
        else:
            begun = look(self.folder) or {"step": 0, "facts": {}}
            self.fingerprint, self.labels = begun["facts"], []
            self.summary = {"unfinished": self.unfinished, "steps": begun["step"], "metrics": {}}
        self._epoch = self._checked_epoch(epoch)
        self.calibration = read_calibration(self.folder) if epoch is None else None  # it belongs to the chosen state
        self._said = False

    def _checked_epoch(self, epoch: int | None) -> int | None:
        if epoch is not None and not best_folder(self.folder, 0, epoch).is_dir():
            kept = self.summary.get("best_epochs", []) if self.summary.get("metrics") else []
            kept = [one for one in kept if best_folder(self.folder, 0, one).is_dir()]
            raise CheckpointError(
                f"{self.folder} holds no state of epoch {epoch}. It holds: {', '.join(map(str, kept)) or 'none'}; "
                "training.keep_best says how many of the best are kept."
            )
        return epoch

    def _read(self) -> None:
        """Read what a run folder says about itself."""
        if self.unfinished:
            _log.warning("%s", self.unfinished)
        if is_meta_trained(self.folder):
            raise CheckpointError(
                f"{self.folder} is a run of `tunesmith episodes`; tunesmith.EpisodeRun.load opens it."
            )
        self.fingerprint = read_json(self.folder / FINGERPRINT, dict)
        self.labels = read_json(self.folder / "labels.json", list)
        self.summary = read_json(self.folder / "metrics.json", dict)
        wanted = {"fingerprint.json": (self.fingerprint, "labels_hash"), "metrics.json": (self.summary, "metrics")}
        for name, (values, key) in wanted.items():
            if not isinstance(values, dict) or key not in values:
                raise CheckpointError(
                    f"{self.folder / name} is damaged: '{key}' is missing. Restore it or train again."
                )
        if hash_of(self.labels) != self.fingerprint["labels_hash"]:
            raise CheckpointError(f"{self.folder / 'labels.json'} was changed: the labels are not those that trained.")

    @classmethod
    def load(cls, folder: str | Path, epoch: int | None = None) -> Run:
        """Open a run folder.

        Args:
            folder: that `train` left.
            epoch: one of the best epochs, to answer with its state.
        Returns:
            The run.
        Raises:
            CheckpointError: not a complete run folder, or the epoch's state was not kept.
        """
        return cls(folder, epoch)

    @cached_property
    def recipe(self) -> Checked:
        """The resolved recipe; where the device that trained is not here, another one answers, and that is said."""
        self._check_finished()
        found = load_recipe(self.folder / "recipe.yaml")
        changed = device_here(self.folder, found.recipe.model.device)
        return load_recipe(self.folder / "recipe.yaml", changed) if changed else found

    @property
    def metrics(self) -> dict[str, dict[str, dict[str, float]]]:
        """Scores of the training run: split, metric, then value, low, high."""
        metrics: dict[str, dict[str, dict[str, float]]] = self.summary["metrics"]
        return metrics

    def report(self) -> Path:
        """Return where the report is.

        Returns:
            The HTML file; it opens offline.
        Raises:
            CheckpointError: the run is not finished.
        """
        self._check_finished()
        return self.folder / "report.html"

    # Answers --------------------------------------------------------------------------------------------------

    def predict_proba(self, texts: str | Sequence[str]) -> Array:
        """Compute the probability of every label, (texts, C).

        Args:
            texts: one or several.
        Returns:
            In the order of `labels`.
        Raises:
            DataError: an empty text.
        """
        given = [texts] if isinstance(texts, str) else list(texts)
        self._check_labels("generate")
        changes = changes_of(self.recipe.recipe.data)
        given = [clean_texts([text], changes)[0] if isinstance(text, str) else text for text in given]
        if not given:
            return np.zeros((0, len(self.labels)))
        data = self.recipe.recipe.data
        return self._probabilities(from_texts(given, Columns(data.text, None)))

    def predict_file(self, path: str | Path) -> list[Prediction]:
        """Answer the rows of a data file; a label column is not needed.

        Args:
            path: a file of any readable kind.
        Returns:
            One prediction per row.
        Raises:
            DataError: the file cannot be used.
        """
        self._check_labels("generate")
        examples = self._read_texts(path)
        places = examples.where if self.recipe.task.reads == "text" else map(examples.text, range(len(examples)))
        found = self._worded(self._probabilities(examples))
        return [replace(one, where=place) for one, place in zip(found, places, strict=True)]

    def evaluate(self, path: str | Path) -> dict[str, Estimate]:
        """Score the run on labelled data.

        Args:
            path: a file with the recipe's text and label columns.
        Returns:
            Metric to value and interval.
        Raises:
            DataError: the file cannot be used, or holds a label that the run does not know.
        """
        found, tokens = self._scored(path)
        scores = estimate(found, self._metrics, self.bootstrap)
        values = {name: one.value for name, one in scores.items()}
        note_opening(self.folder, "evaluate", str(path), tokens, values)
        return scores

    def compare(self, other: Run, path: str | Path) -> list[Difference]:
        """Compare with another run on the same rows by the paired bootstrap.

        Args:
            other: a run of the same labels.
            path: labelled data.
        Returns:
            This run minus the other, for each metric of the task.
        Raises:
            DataError: the runs know different labels.
        """
        if not isinstance(other, Run):
            raise DataError(f"a run is compared with a run (tunesmith.Run.load(folder)), not with {repr(other)[:80]}.")
        if self.labels != other.labels:
            raise DataError("the two runs know different labels, so their scores cannot be compared row by row.")
        first, second = self.scored(path, "compare"), other.scored(path, "compare")
        return [paired_difference(first, second, metric, self.bootstrap) for metric in self._metrics]

    # Calibration ----------------------------------------------------------------------------------------------

    def calibrate(
        self, data: str | Path | None = None, *, precision: float | None = None, coverage: float | None = None
    ) -> dict[str, Any]:
        """Let probabilities mean what they say: choose a temperature, and a threshold for answers, on validation rows.

        Both stay in the run and every later answer uses them, which is said; `uncalibrate` takes them back.

        Args:
            data: labelled rows that neither trained nor are the run's test rows; its validation rows when None.
            precision: choose the threshold that is right on this share of what it answers. [fraction]
            coverage: choose the threshold that answers this share of the rows. [fraction]
        Returns:
            Temperature, threshold, and the scores before and after with intervals; calibration.html draws them.
        Raises:
            DataError: no such rows, test rows among them, or rows that no temperature or threshold can be chosen on.
            RecipeError: precision or coverage out of bounds, or both.
            CompatibilityError: the run writes text.
        """
        self._check_finished()
        self._check_labels("perplexity as a metric")
        self.calibration = None
        try:
            rows = None if data is None else (str(data), *self._labelled(data))
            return calibrate(Calibrating(self.folder, self.labels, self.bootstrap), rows, precision, coverage)
        finally:
            self.calibration = read_calibration(self.folder)

    def uncalibrate(self) -> bool:
        """Take temperature and threshold back, where the run has some.

        Returns:
            Whether it had.
        """
        self.calibration = None
        return forget_calibration(self.folder)

    @property
    def threshold(self) -> float:
        """Of the highest probability, below which there is no answer."""
        return self.calibration.threshold if self.calibration else 0.0

    @property
    def openings(self) -> list[dict[str, Any]]:
        """Every look at the run's test rows so far: when, by what, how many of them, and the scores."""
        return read_openings(self.folder)

    @property
    def opened_again(self) -> str:
        """A sentence where the test rows were looked at more than once; else empty."""
        return worded(len(self.openings))

    # Inside ---------------------------------------------------------------------------------------------------

    def _check_finished(self) -> None:
        if "unfinished" in self.summary:
            raise CheckpointError(f"{self.unfinished} Before that it has no answers and no report.")

    @property
    def bootstrap(self) -> Bootstrap:
        """The resamples that training drew, so that intervals on the same rows agree."""
        recipe = self.recipe.recipe
        return Bootstrap(recipe.evaluation.resamples, recipe.evaluation.confidence, derived(recipe.seed, "bootstrap"))

    @cached_property
    def _opened(self) -> tuple[Session, Tuned]:
        """The model with the run's delta and head; refused when the base is another one."""
        session = open_session(self.recipe)
        for key, found in (("base_model_hash", session.model_hash), ("tokenizer_hash", session.tokenizer_hash)):
            recorded = self.fingerprint.get(key)
            if recorded != found:
                raise CheckpointError(
                    f"{self.folder} was trained on another base: {key} is {found}, the run recorded {recorded}. "
                    f"Load the model it was trained on ({self.fingerprint.get('base_model')})."
                )
        family_of(self.recipe).remind(session, self.recipe, self.labels, self.folder)
        members = [self._member(session, number) for number in range(count_members(self.folder))]
        tuned = Ensemble.of(members, self.recipe.combine, self._learned(len(members)))
        tuned.train(False)
        return session, tuned

    def _learned(self, members: int) -> dict[str, Array]:
        """Load what members are put together with."""
        path, recipe = self.folder / LEARNED, self.recipe
        if path.is_file():
            return {name: found.numpy() for name, found in read_tensors(path).items()}
        weighs = recipe.ensemble is not None and recipe.ensemble.in_turn
        if members > 1 and (weighs or recipe.combine.learns_from != "nothing"):
            raise CheckpointError(f"{path} is missing: the members cannot be put together. Restore it or train again.")
        return {}

    def _member(self, session: Session, number: int) -> Tuned:
        """Load one delta with its head."""
        folder = member_folder(self.folder, number)
        if self._epoch is not None:
            folder = best_folder(self.folder, number, self._epoch)
        name = f"member-{number:03d}" if number else "default"
        _, delta = load_delta(folder / "delta", session.backbone.seams, name)
        head: nn.Module = session.task.head(session.backbone.width, len(self.labels))
        tensors = read_tensors(folder / "head.safetensors") if head.state_dict() else {}
        if not load_head(head, tensors):
            raise CheckpointError(f"{folder / 'head.safetensors'} does not fit labels.json and the base model.")
        return Tuned(session.backbone, session.task, head.to(session.backbone.device), delta)

    def opened(self) -> tuple[Session, Tuned]:
        """Load the run's model, or give it back where it is loaded.

        Returns:
            The session, and the model with the run's delta and head.
        Raises:
            CheckpointError: the base model is another one, or a file is damaged.
        """
        return self._opened

    def _tokens(self, examples: Examples, index: Index | None = None) -> TokenRows:
        session, _ = self._opened
        session.template.check({*examples.columns.all(), "text"})
        tokens, said = family_of(self.recipe).encode(session, placed_rows(session.reads, examples, index))
        for sentence in said:
            _log.warning(sentence)
        return tokens

    def _probabilities(self, examples: Examples, index: Index | None = None) -> Array:
        return self._calibrated(self._opened[1].probabilities(self._tokens(examples, index)).numpy())

    def _calibrated(self, found: Array) -> Array:
        if self.calibration is None:
            return found
        if not self._said:
            _log.warning("answers of %s: %s", self.folder.name, self.calibration.worded())
            self._said = True
        return self.calibration.applied(found)

    def chances(self, examples: Examples, index: Index | None = None) -> Array:
        """Answer rows that were read.

        Args:
            examples: with the columns of the run's template.
            index: (rows,), which of them; all when None.
        Returns:
            (rows, C), in the order of `labels`.
        """
        self._check_labels("generate")
        return self._probabilities(examples, index)

    def _read_texts(self, path: str | Path) -> Examples:
        data = self.recipe.recipe.data
        reader = find_reader(path, data.encoding, data.max_characters, data.columns)
        fields = self._opened[0].template.fields
        others = tuple(name for name in fields if name not in ("text", data.text))
        columns = Columns(reader.only_column or data.text, None, others)
        return read_cleaned(reader, columns, changes=changes_of(data))

    def _check_labels(self, instead: str) -> None:
        if self.recipe.task.family == "generating":
            raise CompatibilityError(
                f"{self.folder} is a run of the task {self.recipe.task.name}, which writes text and has no labels. Use "
                f"{instead}."
            )

    def scored(self, path: str | Path, by: str = "") -> Result:
        """Answer rows whose right answers are known.

        Args:
            path: a file with the recipe's columns.
            by: what looks at them, recorded where they are the run's test rows; empty records nothing.
        Returns:
            What the run did, beside the references.
        """
        found, tokens = self._scored(path)
        if by:
            self._note(by, path, found, tokens)
        return found

    def _note(self, by: str, path: str | Path, found: Result, tokens: TokenRows) -> None:
        whole = found.sample()
        note_opening(self.folder, by, str(path), tokens, {one.name: one.compute(whole) for one in self._metrics})

    @property
    def _metrics(self) -> list[Metric]:
        return metrics_by_name(metric_names(self.recipe))

    def _scored(self, path: str | Path) -> tuple[Result, TokenRows]:
        session, tuned = self._opened
        if session.chat is not None:
            return score_texts(self.recipe, session, tuned, path)
        return self._labelled(path)

    def labelled(self, path: str | Path, by: str = "") -> Predictions:
        """Answer labelled rows.

        Args:
            path: a file with the recipe's text and label columns.
            by: what looks at them, recorded where they are the run's test rows; empty records nothing.
        Returns:
            Probabilities and references.
        Raises:
            CompatibilityError: the run writes text.
        """
        found, tokens = self._labelled(path)
        if by:
            self._note(by, path, found, tokens)
        return found

    def _labelled(self, path: str | Path) -> tuple[Predictions, TokenRows]:
        self._check_labels("evaluate")
        session, tuned = self._opened
        examples = read_labelled(path, self.recipe.recipe.data, session.template, Path.cwd())
        labels = align_labels("evaluation", examples, self.labels, self.recipe.recipe.data.out_of_scope)
        tokens = self._tokens(examples)
        return Predictions(self._calibrated(tuned.probabilities(tokens).numpy()), labels), tokens
