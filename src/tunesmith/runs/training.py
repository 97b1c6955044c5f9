"""Carry out a recipe: data, prompt, tuning, evaluation, run folder."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.errors import RecipeError, TunesmithError
from tunesmith.core.memory import restart_peak
from tunesmith.core.progress import Progress
from tunesmith.core.seeds import seed_everything
from tunesmith.data.tokens import unknown_tokens
from tunesmith.evaluation.statistics import Result
from tunesmith.models.loading import choose_device
from tunesmith.models.products import narrow_named
from tunesmith.recipe.loading import Checked, load_recipe
from tunesmith.runs.comparing import Cost, Meter, Scored
from tunesmith.runs.continuing import Earlier, inherit
from tunesmith.runs.family import Family
from tunesmith.runs.folder import check_free, completed, unfinished
from tunesmith.runs.forgetting import OldRows, forgotten, old_rows
from tunesmith.runs.forgetting import worded as worded_loss
from tunesmith.runs.opening import open_family
from tunesmith.runs.outcome import Outcome, compared
from tunesmith.runs.preparing import prepare
from tunesmith.runs.resuming import Going, check_finished, find_checkpoint, is_finished
from tunesmith.runs.session import Session, check_apart
from tunesmith.runs.writing import write_run
from tunesmith.tasks.ensemble import Ensemble
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.caching import kept_below
from tunesmith.training.checkpoints import Checkpoints
from tunesmith.training.loop import Loop
from tunesmith.training.planning import Plan, plan
from tunesmith.training.preflight import Preflight
from tunesmith.training.trial import Trial

ENDED = 128 + signal.SIGTERM  # exit code of a process that was asked to end, as shells have it

Prepared = list[tuple[Checked, Trial, Preflight]]


def train_recipe(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
    resume: bool = False,
) -> Path:
    """Carry out a recipe and leave a run folder.

    Args:
        recipe: a YAML file, or a mapping with the same keys.
        overrides: `key=value` texts.
        overwrite: replace an existing run.
        progress: for the user.
        resume: go on from the output's newest checkpoint; start anew where there is none.
    Returns:
        The run folder.
    Raises:
        TunesmithError: any of its kinds, each with what to do.
        SystemExit: the process was asked to end; a checkpoint was written.
    """
    progress = progress or Progress()
    checked, earlier = inherit(load_recipe(recipe, overrides))
    output = Path(checked.recipe.output).expanduser().absolute()
    if resume and overwrite:
        raise RecipeError("--resume goes on with a run, --overwrite replaces it: leave one of the two out.")
    if resume and is_finished(output):
        check_finished(output, checked, progress.say)
        return output
    checkpoint = find_checkpoint(output, checked, progress.say) if resume else None
    if not resume:
        check_free(output, overwrite)
    check_apart(checked, output)
    narrow_named(
        checked.recipe.training.precision, choose_device(checked.recipe.model.device)
    )  # refused before all work
    try:
        outcome = _carry_out(checked, earlier, Going(output, checkpoint), progress)
        with completed(output, outcome.trained.interrupted) as folder:
            write_run(outcome, folder)
    except KeyboardInterrupt:
        progress.say(unfinished(output))
        raise
    return output


def _carry_out(checked: Checked, earlier: Earlier | None, going: Going, progress: Progress) -> Outcome:
    began, recipe = time.perf_counter(), checked.recipe
    restart_peak()  # of an earlier run in this process
    seed_everything(recipe.seed)
    family = open_family(checked, earlier)
    session, corpus, judge = family.session, family.corpus, family.judge
    meter, settings = Meter(session.backbone.device), recipe.evaluation
    facts = going.facts(checked, session, corpus, progress.say)
    _tell_data(family, progress)
    names = session.task.baselines if settings.baselines is None else settings.baselines or ()
    family.look(names, meter, progress)
    baselines = family.baselines(names, meter, progress, recipe.seed)
    prepared = prepare(checked, family, earlier)
    old = old_rows(family, earlier, prepared[0][1].tuned) if earlier else None
    warnings = _warned(family, prepared, recipe.training.best)
    planned = _planned(prepared, warnings, progress)
    splits = [split for name, split in corpus.splits.items() if name != "test"]
    trials = [trial for _, trial, _ in prepared]
    cost = Cost()
    if checked.method.trains or checked.candidates:
        with kept_below(trials, splits, recipe.training, session.model_hash, progress.say):
            cost = _train(trials, meter, going, going.begin(checked, facts, progress.say), progress, warnings)
    kept = _kept(prepared, checked, family, warnings, progress)
    (chosen, trial, found), tuned = kept.best, kept.tuned
    lost = _tell_forgotten(family, old, tuned, warnings, progress) if earlier else {}
    ours = judge.score(Scored(chosen.method.name, _answer(tuned, family, progress), found.share, family.learned(cost)))
    return Outcome(
        checked=chosen if len(kept.members) == 1 else checked,
        session=session,
        corpus=corpus,
        examples=sum(other.trained.examples for _, other, _ in prepared),
        preflight=found,
        predicted_peak_bytes=planned.peak_bytes,
        trained=trial.trained,
        tuned=tuned,
        methods=[one.method for one, trial, _ in prepared if trial.tuned in kept.members],
        forgetting=lost,
        candidates=[
            compared(checked, *item, chosen=item[1].tuned in kept.members) for item in prepared if checked.candidates
        ],
        ours=ours,
        baselines=baselines,
        gains=judge.gain(ours, baselines, judge.splits[-1]),
        judge=judge,
        samples=family.samples(tuned),
        seconds=time.perf_counter() - began,
        peak_bytes=meter.peak_bytes,
        quantization=_compare_base(family, progress, warnings),
        warnings=warnings,
    )


@dataclass(frozen=True)
class _Kept:
    """What of the candidates stays: the best on validation, what answers, and its members."""

    best: tuple[Checked, Trial, Preflight]
    members: list[Tuned]
    tuned: Any


def _kept(prepared: Prepared, checked: Checked, family: Family, warnings: list[str], progress: Progress) -> _Kept:
    best = min(prepared, key=lambda item: item[1].key)
    _tell_diverged(prepared, warnings, progress)
    members = _together(prepared, checked.recipe.combine, best[1])
    _tell_choice(prepared, best[1], members, progress)
    for member in members:
        family.settle(member)
    return _Kept(best, members, Ensemble.of(members))


def _warned(family: Family, prepared: Prepared, best: str) -> list[str]:
    """Gather what the user should know before the first step."""
    session, corpus = family.session, family.corpus
    stored = [] if session.quantised is None else [session.quantised.sentence]
    found = [*corpus.warnings, *_unknown(family), *stored, *_method_warnings(prepared, session)]
    if "test" not in corpus.splits and best != "last":
        found.append(
            "there is no test file or share: scores are on validation, which chooses the epoch, so they flatter."
        )
    return found


def _compare_base(family: Family, progress: Progress, warnings: list[str]) -> dict[str, Any]:
    """Say what a quantised base lost; last, so that the full-precision model does not count as the run's memory."""
    found = family.on_base(progress)
    if found:
        warnings.append(found["sentence"])
        progress.say(f"note: {warnings[-1]}")
    return found


def _unknown(family: Family) -> list[str]:
    tokenizer, splits = family.session.tokenizer, family.corpus.splits
    return [said for name, split in splits.items() for said in unknown_tokens(split.tokens, tokenizer, name)]


def _method_warnings(prepared: Prepared, session: Session) -> list[str]:
    found = [warning for checked, _, _ in prepared for warning in checked.method.warnings(session.backbone.seams)]
    return list(dict.fromkeys(found))


def _train(
    trials: list[Trial], meter: Meter, going: Going, checkpoints: Checkpoints, progress: Progress, warnings: list[str]
) -> Cost:
    """Fit, and say so when the user stopped it."""
    total = sum(trial.settings.epochs * len(trial.split.tokens) for trial in trials)
    loop = Loop(trials)
    if going.checkpoint is not None:
        loop.resume(going.checkpoint, progress.say)
    with meter.stage() as cost, progress.stage("training", total) as bar:
        bar(sum(trial.trained.examples for trial in trials))
        loop.fit(bar, checkpoints, progress.say)
    if loop.ended:
        progress.say(
            f"training was ended after step {loop.steps}; its checkpoint is in {checkpoints.folder}. Go on with the "
            "same command and --resume."
        )
        raise SystemExit(ENDED)
    _check_moved(trials)
    if len(trials) == 1 and trials[0].trained.diverged:
        epoch, step = trials[0].trained.best_epoch, trials[0].trained.kept_step
        kept = (
            f"the state after epoch {epoch}, the best before, was kept."
            if epoch
            else (f"the state after step {step}, the last checkpoint before, was kept.")
        )
        warnings.append(f"{trials[0].trained.reason} {kept}")
        progress.say(f"note: {warnings[-1]}")
    elif all(trial.trained.diverged for trial in trials):
        raise TunesmithError(
            f"the loss of all {len(trials)} candidates is no longer a number: training diverged. Lower "
            "training.learning_rate or set training.clip_norm."
        )
    if loop.interrupted:
        best = min(trials, key=lambda trial: trial.key).trained
        kept = f"after epoch {best.best_epoch}" if best.best_epoch else f"after step {best.steps}"
        warnings.append(f"training was interrupted; the state {kept} was kept.")
        more = " Go on with the same command and --resume." if checkpoints.written is not None else ""
        progress.say(f"note: {warnings[-1]} It is scored and saved now.{more}")
    return cost


def _check_moved(trials: list[Trial]) -> None:
    """Refuse training in which no step could be taken."""
    if all(0 < trial.trained.steps == trial.optimizer.left_out for trial in trials):
        raise TunesmithError(
            f"nothing was trained: in every one of {trials[0].trained.steps} steps a gradient was larger than float16 "
            "holds, and such steps are left out. Set model.dtype to bfloat16 or float32, train for more steps, or "
            "lower method.alpha where it is large."
        )


def _together(prepared: Prepared, combine: str, best: Trial) -> list[Tuned]:
    """Return what answers: the best trial's, or every one's that did not diverge."""
    if combine == "best":
        return [best.tuned]
    return [trial.tuned for _, trial, _ in prepared if not trial.trained.diverged]


def _tell_diverged(prepared: Prepared, warnings: list[str], progress: Progress) -> None:
    if len(prepared) == 1:
        return
    for number, (_, trial, _) in enumerate(prepared):
        if trial.trained.diverged:
            warnings.append(f"candidate {number} diverged at step {trial.trained.diverged} and was dropped.")
            progress.say(f"note: {warnings[-1]}")


def _tell_choice(prepared: Prepared, best: Trial, members: list[Tuned], progress: Progress) -> None:
    """Say which candidate was chosen on validation, or how many answer together."""
    if len(prepared) == 1:
        return
    if len(members) > 1:
        progress.say(f"{len(members)} candidates answer together: their probabilities are averaged")
        return
    number = next(number for number, (_, trial, _) in enumerate(prepared) if trial is best)
    progress.say(f"candidate {number} of {len(prepared)} is the best on validation; only it is kept")


def _tell_forgotten(
    family: Family, old: OldRows | None, tuned: Tuned, warnings: list[str], progress: Progress
) -> dict[str, Any]:
    """Say what training on the new rows cost on the old ones."""
    found = forgotten(family, old, tuned) if old else {}
    warnings.append(worded_loss(found))
    progress.say(f"note: {warnings[-1]}")
    return found


def _answer(tuned: Tuned, family: Family, progress: Progress) -> dict[str, Result]:
    """Answer the evaluated splits with the kept state."""
    found: dict[str, Result] = {}
    with progress.stage("evaluation", len(family.judge.splits), "splits") as bar:
        for name in family.judge.splits:
            found[name] = family.answer(tuned, family.corpus.splits[name])
            bar(1)
    return found


def _tell_data(family: Family, progress: Progress) -> None:
    """Say what was read."""
    for sentence in family.told():
        progress.say(sentence)
    session = family.session
    path = "flat rows, no padding" if session.backbone.proof.fast else f"padded ({session.backbone.proof.reason})"
    progress.say(f"model: {session.source.wanted}, {session.backbone.parameters:,} parameters; batches: {path}")


def _planned(prepared: Prepared, warnings: Sequence[str], progress: Progress) -> Plan:
    """Plan the memory, and say what will train, before the first step."""
    planned = plan([(trial, facts) for _, trial, facts in prepared])
    for number, (checked, trial, facts) in enumerate(prepared):
        copies = len(trial.tuned.delta.copies)
        where = " and ".join(
            [*([f"{facts.layers} adapted layers"] if facts.layers else []),
             *([f"{copies} of the model's tensors"] if copies else []),
             *(["a soft prompt"] if trial.tuned.delta.prompt is not None else []),
             *(["the head"] if any(True for _ in trial.tuned.head.parameters()) else [])]
        )  # fmt: skip
        who = "training" if len(prepared) == 1 else f"candidate {number}: {checked.method.name},"
        progress.say(f"{who} {facts.trainable:,} parameters ({100 * facts.share:.2f} %) in {where}")
    progress.say(planned.sentence())
    notes = dict.fromkeys(note for _, _, facts in prepared for note in facts.notes)
    for note in (*notes, *warnings):
        progress.say(f"note: {note}")
    return planned
