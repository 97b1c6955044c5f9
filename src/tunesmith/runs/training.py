"""Carry out a recipe: data, prompt, tuning, evaluation, run folder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tunesmith.core.memory import restart_peak
from tunesmith.core.progress import Progress
from tunesmith.core.registry import find
from tunesmith.core.seeds import derived, seed_everything
from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.statistics import Bootstrap, metrics_by_name
from tunesmith.recipe.loading import Checked, load_recipe
from tunesmith.runs.comparing import Cost, Frozen, Judge, Meter, Scored, frozen_features, run_baselines
from tunesmith.runs.folder import check_free, staged
from tunesmith.runs.outcome import Outcome
from tunesmith.runs.quantization import compare_with_full_precision, worded
from tunesmith.runs.session import Session, open_session
from tunesmith.runs.writing import write_run
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.corpus import Corpus, Split, load_corpus
from tunesmith.training.loop import Loop, Trained
from tunesmith.training.preflight import Preflight, check
from tunesmith.training.starting import show


def train_recipe(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Carry out a recipe and leave a run folder.

    Args:
        recipe: a YAML file, or a mapping with the same keys.
        overrides: `key=value` texts.
        overwrite: replace an existing run.
        progress: for the user.
    Returns:
        The run folder.
    Raises:
        TunesmithError: any of its kinds, each with what to do.
    """
    progress = progress or Progress()
    checked = load_recipe(recipe, overrides)
    output = Path(checked.recipe.output).expanduser().absolute()
    check_free(output, overwrite)
    outcome = _carry_out(checked, progress)
    with staged(output) as folder:
        write_run(outcome, folder)
    return output


def _carry_out(checked: Checked, progress: Progress) -> Outcome:
    began, recipe = time.perf_counter(), checked.recipe
    restart_peak()  # of an earlier run in this process
    seed_everything(recipe.seed)
    session = open_session(checked)
    corpus = load_corpus(
        recipe.data, session.template, session.tokenizer, session.max_tokens, recipe.seed, checked.folder
    )
    meter = Meter(session.backbone.device)
    settings = recipe.evaluation
    judge = Judge(
        metrics_by_name(settings.metrics or session.task.metrics),
        Bootstrap(settings.resamples, settings.confidence, derived(recipe.seed, "bootstrap")),
        [name for name in ("validation", "test") if name in corpus.splits],
    )
    _tell_data(session, corpus, progress)
    names = session.task.baselines if settings.baselines is None else settings.baselines or ()
    frozen = frozen_features(session, corpus, _read_frozen(session, judge, names), meter, progress)
    baselines = run_baselines(names, session, corpus, frozen, judge, meter, recipe.seed)
    loop, facts = _prepare(checked, session, corpus, frozen, judge)
    stored = [] if session.quantised is None else [session.quantised.sentence]
    warnings = [*corpus.warnings, *stored, *checked.method.warnings(session.backbone.seams)]
    if "test" not in corpus.splits and recipe.training.best != "last":
        warnings.append("there is no test file: scores are on validation, which chooses the epoch, so they flatter.")
    _tell_plan(loop, facts, warnings, progress)
    trained, cost = _train(loop, corpus, meter, progress, warnings)
    learned = cost.plus(frozen.costs["train"]) if session.task.starts_from_features else cost
    ours = judge.score(Scored(checked.method.name, _answer(loop.tuned, corpus, judge, progress), facts.share, learned))
    return Outcome(
        checked=checked,
        session=session,
        corpus=corpus,
        preflight=facts,
        trained=trained,
        tuned=loop.tuned,
        ours=ours,
        baselines=baselines,
        gains=judge.gain(ours, baselines, judge.splits[-1]),
        judge=judge,
        seconds=time.perf_counter() - began,
        peak_bytes=meter.peak_bytes,
        quantization=_compare_base(session, corpus, frozen, judge, progress, warnings),
        warnings=warnings,
    )


def _compare_base(
    session: Session, corpus: Corpus, frozen: Frozen, judge: Judge, progress: Progress, warnings: list[str]
) -> dict[str, Any]:
    """Say what a quantised base lost; last, so that the full-precision model does not count as the run's memory."""
    found = compare_with_full_precision(session, corpus, frozen, judge, progress)
    if found:
        warnings.append(worded(found))
        progress.say(f"note: {warnings[-1]}")
    return found


def _train(loop: Loop, corpus: Corpus, meter: Meter, progress: Progress, warnings: list[str]) -> tuple[Trained, Cost]:
    """Fit, and say so when the user stopped it."""
    total = loop.settings.epochs * len(corpus.splits["train"].tokens)
    with meter.stage() as cost, progress.stage("training", total) as bar:
        trained = loop.fit(bar)
    if trained.interrupted:
        kept = f"after epoch {trained.best_epoch}" if trained.best_epoch else f"after step {trained.steps}"
        warnings.append(f"training was interrupted; the state {kept} was kept.")
        progress.say(f"note: {warnings[-1]} It is scored and saved now.")
    return trained, cost


def _answer(tuned: Tuned, corpus: Corpus, judge: Judge, progress: Progress) -> dict[str, Predictions]:
    """Predict the evaluated splits with the kept state."""
    found = {}
    with progress.stage("evaluation", len(judge.splits), "splits") as bar:
        for name in judge.splits:
            found[name] = _predict(tuned, corpus.splits[name])
            bar(1)
    return found


def _read_frozen(session: Session, judge: Judge, baselines: Sequence[str]) -> list[str]:
    """Return the splits whose features under the untuned model somebody reads."""
    if baselines or session.quantised is not None:
        return ["train", *judge.splits]
    return ["train"] if session.task.starts_from_features else []


def _prepare(
    checked: Checked, session: Session, corpus: Corpus, frozen: Frozen, judge: Judge
) -> tuple[Loop, Preflight]:
    """Attach the method, make the head, and prove that a step would train them."""
    recipe, backbone, split = checked.recipe, session.backbone, corpus.splits["train"]
    seed_everything(derived(recipe.seed, "weights"))
    delta = checked.method.attach(backbone.seams)
    if checked.method.data_driven:
        seed = derived(recipe.seed, "initialise")
        checked.method.initialise(delta, lambda: show(backbone, delta, split, recipe.training.batch_size, seed))
    head = session.task.head(backbone.width, len(corpus.label_names)).to(backbone.device)
    if recipe.model.dtype == "float64":
        head.double()
    if session.task.starts_from_features:
        labels = torch.from_numpy(split.labels)
        session.task.start(head, frozen.features["train"].to(backbone.device), labels.to(backbone.device))
    tuned = Tuned(backbone, session.task, head, delta)
    loop = Loop(
        tuned,
        split,
        recipe.training,
        recipe.seed,
        validate=lambda: _validate(tuned, corpus.splits["validation"], judge),
        best=_best(recipe.training.best, judge),
        method=checked.method,
    )
    facts = check(loop)
    seed_everything(derived(recipe.seed, "training"))
    backbone.seams.routing.dropout.seed(derived(recipe.seed, "dropout"))
    return loop, facts


def _best(wanted: str, judge: Judge) -> tuple[str, bool]:
    name = judge.metrics[0].name if wanted == "auto" else wanted
    if name in ("last", "validation loss"):
        return name, False
    return name, find("metrics", name).higher_is_better


def _validate(tuned: Tuned, split: Split, judge: Judge) -> dict[str, float]:
    found = _predict(tuned, split)
    sample = found.sample()
    scores = {metric.name: metric.compute(sample) for metric in judge.metrics}
    return {"validation loss": float(found.row_loss.mean()), **scores}


def _predict(tuned: Tuned, split: Split) -> Predictions:
    return Predictions(tuned.probabilities(split.tokens).numpy(), split.labels)


def _tell_data(session: Session, corpus: Corpus, progress: Progress) -> None:
    """Say what was read."""
    for name, split in corpus.splits.items():
        lengths = split.audit.tokens
        progress.say(
            f"{name}: {split.audit.rows:,} rows, {len(split.audit.classes)} labels, tokens median "
            f"{lengths['median']} / p95 {lengths['p95']} / longest {lengths['longest']}, "
            f"{split.audit.truncated} truncated, {split.audit.duplicates} duplicates"
        )
    path = "flat rows, no padding" if session.backbone.proof.fast else f"padded ({session.backbone.proof.reason})"
    progress.say(f"model: {session.source.wanted}, {session.backbone.parameters:,} parameters; batches: {path}")


def _tell_plan(loop: Loop, facts: Preflight, warnings: Sequence[str], progress: Progress) -> None:
    """Say what will train, before the first step."""
    copies = len(loop.tuned.delta.copies)
    where = " and ".join(
        [*([f"{facts.layers} adapted layers"] if facts.layers else []),
         *([f"{copies} of the model's tensors"] if copies else []), "the head"]
    )  # fmt: skip
    progress.say(
        f"training {facts.trainable:,} parameters ({100 * facts.share:.2f} %) in {where}; "
        f"predicted peak memory {facts.predicted_peak_bytes / 1e6:,.0f} MB"
    )
    for note in (*facts.notes, *warnings):
        progress.say(f"note: {note}")
