"""Carry out a recipe: data, prompt, tuning, evaluation, run folder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.errors import TunesmithError
from tunesmith.core.memory import restart_peak
from tunesmith.core.progress import Progress
from tunesmith.core.seeds import derived, seed_everything
from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.statistics import Bootstrap, metrics_by_name
from tunesmith.recipe.loading import Checked, load_recipe
from tunesmith.runs.comparing import Cost, Frozen, Judge, Meter, Scored, frozen_features, run_baselines
from tunesmith.runs.continuing import Earlier, OldRows, check_base, forgotten, inherit, old_rows
from tunesmith.runs.continuing import worded as worded_loss
from tunesmith.runs.folder import check_free, staged
from tunesmith.runs.outcome import Outcome, compared
from tunesmith.runs.preparing import predict, prepare
from tunesmith.runs.quantization import compare_with_full_precision, worded
from tunesmith.runs.session import Session, open_session
from tunesmith.runs.writing import write_run
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.corpus import Corpus, load_corpus
from tunesmith.training.loop import Loop
from tunesmith.training.preflight import Preflight, predicted_peak_bytes
from tunesmith.training.trial import Trial

Prepared = list[tuple[Checked, Trial, Preflight]]


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
    checked, earlier = inherit(load_recipe(recipe, overrides))
    output = Path(checked.recipe.output).expanduser().absolute()
    check_free(output, overwrite)
    outcome = _carry_out(checked, earlier, progress)
    with staged(output) as folder:
        write_run(outcome, folder)
    return output


def _carry_out(checked: Checked, earlier: Earlier | None, progress: Progress) -> Outcome:
    began, recipe = time.perf_counter(), checked.recipe
    restart_peak()  # of an earlier run in this process
    seed_everything(recipe.seed)
    session, corpus, judge = _open(checked, earlier)
    meter, settings = Meter(session.backbone.device), recipe.evaluation
    _tell_data(session, corpus, progress)
    names = session.task.baselines if settings.baselines is None else settings.baselines or ()
    frozen = frozen_features(session, corpus, _read_frozen(session, judge, names), meter, progress)
    baselines = run_baselines(names, session, corpus, frozen, judge, meter, recipe.seed)
    prepared = prepare(checked, session, corpus, frozen, judge, earlier)
    old = old_rows(earlier, prepared[0][1].tuned, session, corpus.label_names) if earlier else None
    stored = [] if session.quantised is None else [session.quantised.sentence]
    warnings = [*corpus.warnings, *stored, *_method_warnings(prepared, session)]
    if "test" not in corpus.splits and recipe.training.best != "last":
        warnings.append("there is no test file: scores are on validation, which chooses the epoch, so they flatter.")
    _tell_plan(prepared, warnings, progress)
    cost = _train([trial for _, trial, _ in prepared], meter, progress, warnings)
    chosen, trial, facts = min(prepared, key=lambda item: item[1].key)
    _tell_choice(prepared, trial, warnings, progress)
    learned = cost.plus(frozen.costs["train"]) if session.task.starts_from_features else cost
    lost = _tell_forgotten(earlier, old, trial, judge, warnings, progress)
    ours = judge.score(Scored(chosen.method.name, _answer(trial.tuned, corpus, judge, progress), facts.share, learned))
    return Outcome(
        checked=chosen,
        session=session,
        corpus=corpus,
        examples=sum(other.trained.examples for _, other, _ in prepared),
        preflight=facts,
        predicted_peak_bytes=predicted_peak_bytes([other for _, _, other in prepared]),
        trained=trial.trained,
        tuned=trial.tuned,
        forgetting=lost,
        candidates=[compared(checked, *item, chosen=item[1] is trial) for item in prepared if checked.candidates],
        ours=ours,
        baselines=baselines,
        gains=judge.gain(ours, baselines, judge.splits[-1]),
        judge=judge,
        seconds=time.perf_counter() - began,
        peak_bytes=meter.peak_bytes,
        quantization=_compare_base(session, corpus, frozen, judge, progress, warnings),
        warnings=warnings,
    )


def _open(checked: Checked, earlier: Earlier | None) -> tuple[Session, Corpus, Judge]:
    """Load the model and the data, and settle how all is scored."""
    recipe, settings = checked.recipe, checked.recipe.evaluation
    session = open_session(checked)
    if earlier is not None:
        check_base(earlier, session)
    corpus = load_corpus(
        recipe.data,
        session.template,
        session.tokenizer,
        session.max_tokens,
        recipe.seed,
        checked.folder,
        earlier.labels if earlier else (),
    )
    judge = Judge(
        metrics_by_name(settings.metrics or session.task.metrics),
        Bootstrap(settings.resamples, settings.confidence, derived(recipe.seed, "bootstrap")),
        [name for name in ("validation", "test") if name in corpus.splits],
    )
    return session, corpus, judge


def _compare_base(
    session: Session, corpus: Corpus, frozen: Frozen, judge: Judge, progress: Progress, warnings: list[str]
) -> dict[str, Any]:
    """Say what a quantised base lost; last, so that the full-precision model does not count as the run's memory."""
    found = compare_with_full_precision(session, corpus, frozen, judge, progress)
    if found:
        warnings.append(worded(found))
        progress.say(f"note: {warnings[-1]}")
    return found


def _method_warnings(prepared: Prepared, session: Session) -> list[str]:
    found = [warning for checked, _, _ in prepared for warning in checked.method.warnings(session.backbone.seams)]
    return list(dict.fromkeys(found))


def _train(trials: list[Trial], meter: Meter, progress: Progress, warnings: list[str]) -> Cost:
    """Fit, and say so when the user stopped it."""
    total = sum(trial.settings.epochs * len(trial.split.tokens) for trial in trials)
    loop = Loop(trials)
    with meter.stage() as cost, progress.stage("training", total) as bar:
        loop.fit(bar)
    if all(trial.trained.diverged for trial in trials):
        raise TunesmithError(
            f"the loss of all {len(trials)} candidates is no longer a number: training diverged. Lower "
            "training.learning_rate or set training.clip_norm."
        )
    if loop.interrupted:
        best = min(trials, key=lambda trial: trial.key).trained
        kept = f"after epoch {best.best_epoch}" if best.best_epoch else f"after step {best.steps}"
        warnings.append(f"training was interrupted; the state {kept} was kept.")
        progress.say(f"note: {warnings[-1]} It is scored and saved now.")
    return cost


def _tell_choice(prepared: Prepared, best: Trial, warnings: list[str], progress: Progress) -> None:
    """Say which candidate was chosen on validation, and which ones diverged."""
    if len(prepared) == 1:
        return
    for number, (_, trial, _) in enumerate(prepared):
        if trial.trained.diverged:
            warnings.append(f"candidate {number} diverged at step {trial.trained.diverged} and was dropped.")
            progress.say(f"note: {warnings[-1]}")
    number = next(number for number, (_, trial, _) in enumerate(prepared) if trial is best)
    progress.say(f"candidate {number} of {len(prepared)} is the best on validation; only it is kept")


def _tell_forgotten(
    earlier: Earlier | None, old: OldRows | None, trial: Trial, judge: Judge, warnings: list[str], progress: Progress
) -> dict[str, Any]:
    """Say what training on the new rows cost on the old ones."""
    if earlier is None:
        return {}
    found = forgotten(old, trial.tuned, judge)
    warnings.append(worded_loss(found))
    progress.say(f"note: {warnings[-1]}")
    return found


def _answer(tuned: Tuned, corpus: Corpus, judge: Judge, progress: Progress) -> dict[str, Predictions]:
    """Predict the evaluated splits with the kept state."""
    found = {}
    with progress.stage("evaluation", len(judge.splits), "splits") as bar:
        for name in judge.splits:
            found[name] = predict(tuned, corpus.splits[name])
            bar(1)
    return found


def _read_frozen(session: Session, judge: Judge, baselines: Sequence[str]) -> list[str]:
    """Return the splits whose features under the untuned model somebody reads."""
    if baselines or session.quantised is not None:
        return ["train", *judge.splits]
    return ["train"] if session.task.starts_from_features else []


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


def _tell_plan(prepared: Prepared, warnings: Sequence[str], progress: Progress) -> None:
    """Say what will train, before the first step."""
    for number, (checked, trial, facts) in enumerate(prepared):
        copies = len(trial.tuned.delta.copies)
        where = " and ".join(
            [*([f"{facts.layers} adapted layers"] if facts.layers else []),
             *([f"{copies} of the model's tensors"] if copies else []),
             *(["a soft prompt"] if trial.tuned.delta.prompt is not None else []), "the head"]
        )  # fmt: skip
        who = "training" if len(prepared) == 1 else f"candidate {number}: {checked.method.name},"
        progress.say(f"{who} {facts.trainable:,} parameters ({100 * facts.share:.2f} %) in {where}")
    progress.say(f"predicted peak memory {predicted_peak_bytes([facts for _, _, facts in prepared]) / 1e6:,.0f} MB")
    notes = dict.fromkeys(note for _, _, facts in prepared for note in facts.notes)
    for note in (*notes, *warnings):
        progress.say(f"note: {note}")
