"""From a checked recipe to its family: model, data, and how all is scored."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunesmith.core.errors import DataError, RecipeError
from tunesmith.core.registry import find
from tunesmith.core.seeds import derived
from tunesmith.data.tokens import TokenRows, unknown_tokens
from tunesmith.evaluation.statistics import Bootstrap, metrics_by_name
from tunesmith.evaluation.written import Written
from tunesmith.models.tagging import open_tagger
from tunesmith.recipe.loading import Checked
from tunesmith.runs.comparing import Judge
from tunesmith.runs.continuing import Earlier, check_base
from tunesmith.runs.doubting import clean_by_features
from tunesmith.runs.family import Family
from tunesmith.runs.generating import Generating
from tunesmith.runs.labelling import Labelling
from tunesmith.runs.prompted import Prompted
from tunesmith.runs.session import Reading, Session, open_session
from tunesmith.tasks.generating import AnswerTask
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.corpus import Corpus, Split
from tunesmith.training.processes import ALONE, Processes

_log = logging.getLogger("tunesmith")

_FAMILIES: dict[str, type[Family]] = {"labelling": Labelling, "generating": Generating, "prompting": Prompted}


def open_family(checked: Checked, earlier: Earlier | None, processes: Processes = ALONE) -> Family:
    """Load the model and the data, and settle how all is scored.

    Args:
        checked: the recipe.
        earlier: run to go on from, or None.
        processes: that train together.
    Returns:
        The family of the recipe's task.
    Raises:
        TunesmithError: anything wrong with the model or the data.
    """
    recipe, settings = checked.recipe, checked.recipe.evaluation
    session = open_session(checked, processes)
    if earlier is not None:
        check_base(earlier, session)
    corpus = read_corpus(checked, session, earlier.labels if earlier else ())
    corpus = clean_by_features(checked, session, corpus)
    judge = Judge(
        metrics_by_name(metric_names(checked)),
        Bootstrap(settings.resamples, settings.confidence, derived(recipe.seed, "bootstrap")),
        [name for name in ("validation", "test") if name in corpus.splits],
    )
    return family_of(checked)(session, corpus, judge)


def on_fold(checked: Checked, earlier: Earlier | None, family: Family, fold: int) -> Family:
    """Open another fold of the same data.

    Args:
        checked: the recipe, with `data.folds`.
        earlier: run to go on from, or None.
        family: of another fold, before it was trained.
        fold: which one, from 0.
    Returns:
        A family with the same model.
    Raises:
        DataError: the fold has no row, or leaves a label none to train.
    """
    data = checked.recipe.data.model_copy(update={"fold": fold})
    own = replace(checked, recipe=checked.recipe.model_copy(update={"data": data}))
    corpus = read_corpus(own, family.session, earlier.labels if earlier else ())
    return replace(family, corpus=clean_by_features(own, family.session, corpus))


def open_folds(checked: Checked, earlier: Earlier | None, first: Family) -> list[Family]:
    """Open all folds of the data, of every draw.

    Args:
        checked: the recipe, with `data.folds`.
        earlier: run to go on from, or None.
        first: family of fold 0, before it was trained.
    Returns:
        One family per fold, with the same model.
    Raises:
        DataError: a fold has no row, fewer rows than there are labels, or leaves a label none to train.
    """
    data = checked.recipe.data
    folds = range(1, (data.folds or 1) * data.fold_repeats)
    families = [first, *(on_fold(checked, earlier, first, fold) for fold in folds)]
    classes = len(first.corpus.label_names) if isinstance(first, Labelling) else 1
    sizes = [len(family.corpus.splits["validation"].index) for family in families]
    if min(sizes) < classes:
        most = sum(sizes[: data.folds]) // classes
        lower = f"Lower data.folds ({most} at most), or give" if most > 1 else "Give"
        raise DataError(
            f"data.folds: fold {sizes.index(min(sizes))} of {data.folds} has {min(sizes)} rows, and there are "
            f"{classes} labels: a fold that cannot hold all of them is scored by something else than all rows are. "
            f"{lower} a share data.validation in its place."
        )
    return families


def family_of(checked: Checked) -> type[Family]:
    """Choose how a recipe is carried out.

    Args:
        checked: the recipe.
    Returns:
        The family of its task.
    """
    return _FAMILIES[checked.task.family]


def read_corpus(checked: Checked, session: Reading, known: Sequence[str] = ()) -> Corpus:
    """Read a recipe's data.

    Args:
        checked: the recipe.
        session: its model.
        known: labels that an earlier run knows.
    Returns:
        The splits.
    Raises:
        DataError: anything wrong with the data.
    """
    try:
        return family_of(checked).read(checked, session, known)
    finally:
        open_tagger.cache_clear()  # its memory is needed for training


def held_out_again(checked: Checked, session: Session, fingerprint: Mapping[str, Any], known: Sequence[str]) -> Split:
    """Hold the share of a run's training file out again that did not train.

    Args:
        checked: the run's recipe.
        session: its model.
        fingerprint: of the run.
        known: its labels.
    Returns:
        The rows of test where it is a share, else of validation.
    Raises:
        DataError: the file changed meanwhile, so that rows which trained could be among them.
    """
    data = checked.recipe.data
    plain = data.model_copy(update={"augmentation": []})  # of rows that train alone
    corpus = read_corpus(replace(checked, recipe=checked.recipe.model_copy(update={"data": plain})), session, known)
    if corpus.content_hash.split("+")[0] != str(fingerprint.get("data_hash")).split("+")[0]:
        raise DataError(
            f"{data.train} is not as it was when the run trained on it, so its held-out rows are not known any more. "
            "Give a file of rows that did not train (--data)."
        )
    return corpus.splits["validation" if data.test is None else "test"]


def score_texts(checked: Checked, session: Session, tuned: Tuned, path: str | Path) -> tuple[Written, TokenRows]:
    """Let a tuned language model answer the rows of a file.

    Args:
        checked: the recipe.
        session: its model.
        tuned: with its delta.
        path: of the file.
    Returns:
        Likelihoods and answers, and the rows.
    Raises:
        DataError: the file cannot be used.
    """
    split = Generating.read_file(path, checked, session)
    judge = Judge(metrics_by_name(metric_names(checked)), Bootstrap(), ["test"])
    family = Generating(session, Corpus([], {"test": split}), judge)
    for said in unknown_tokens(split.tokens, session.tokenizer, str(path)):
        warnings.warn(said, stacklevel=2)
    for said in (*split.remarks, *family.crowded("test")):
        _log.warning("%s: %s", path, said.removeprefix("test: "))
    return family.answer(tuned, split), split.tokens


def metric_names(checked: Checked) -> list[str]:
    """Return the metrics that a recipe's rows can be scored by.

    Args:
        checked: the recipe.
    Returns:
        Those it names, or the task's own; those that read answers are left out where none is generated.
    """
    wanted, task = checked.recipe.evaluation.metrics, checked.task
    rejecting = [] if getattr(task, "reject", None) is None else ["in-scope-accuracy", "out-of-scope-recall"]
    names = list(wanted or (*task.metrics, *rejecting))
    if isinstance(task, AnswerTask) and task.answered_rows == 0:
        names = [name for name in names if find("metrics", name).reads != "answers"]
    if task.opens == "masked" and "bits-per-character" in names:
        if wanted:
            raise RecipeError(
                "evaluation.metrics: bits-per-character needs every token to be predicted; with task.objective=masked "
                "only hidden ones are. Choose perplexity or nats-per-token."
            )
        names.remove("bits-per-character")
    return names
