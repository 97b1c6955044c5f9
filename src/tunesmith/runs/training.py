"""Carry out a recipe: data, prompt, tuning, evaluation, run folder."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.errors import RecipeError, TunesmithError
from tunesmith.core.memory import give_back, restart_peak
from tunesmith.core.progress import Progress, Silence
from tunesmith.core.seeds import seed_everything
from tunesmith.data.tokens import unknown_tokens
from tunesmith.evaluation.statistics import Result
from tunesmith.fewshot.choosers.auto import Auto
from tunesmith.models.loading import choose_device
from tunesmith.models.products import narrow_named
from tunesmith.recipe.loading import Checked, load_recipe
from tunesmith.runs.choosing import choose
from tunesmith.runs.comparing import Cost, Meter, Scored
from tunesmith.runs.continuing import Earlier, inherit
from tunesmith.runs.family import Family
from tunesmith.runs.folder import completed, unfinished
from tunesmith.runs.forgetting import OldRows, forgotten, old_rows
from tunesmith.runs.forgetting import worded as worded_loss
from tunesmith.runs.members import prepare_members, train_in_turn
from tunesmith.runs.opening import open_family
from tunesmith.runs.openings import kept_openings, read_openings, worded
from tunesmith.runs.outcome import Outcome, compared
from tunesmith.runs.preparing import Prepared, prepare
from tunesmith.runs.resuming import OF_A_PROCESS, Going, check_finished, check_wishes, find_checkpoint, is_finished
from tunesmith.runs.schemes import introduce, learned_besides
from tunesmith.runs.session import Session, check_apart
from tunesmith.runs.teaching import learn_from_teacher
from tunesmith.runs.together import Together, put_together
from tunesmith.runs.tracking import Tracking, trackers_of
from tunesmith.runs.unseen import UnseenClasses
from tunesmith.runs.writing import write_run
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.caching import kept_below
from tunesmith.training.checkpoints import Checkpoints
from tunesmith.training.loop import Loop
from tunesmith.training.planning import Plan, plan
from tunesmith.training.preflight import Preflight
from tunesmith.training.processes import Processes, joined, take_device
from tunesmith.training.stopping import ENDED
from tunesmith.training.trial import Trial


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
    with joined() as processes:
        told = (progress or Progress()) if processes.first else Silence()
        return _train_recipe(inherit(load_recipe(recipe, overrides)), (overwrite, resume), told, processes)


def _train_recipe(
    given: tuple[Checked, Earlier | None], wanted: tuple[bool, bool], progress: Progress, processes: Processes
) -> Path:
    (checked, earlier), (overwrite, resume) = given, wanted
    output = Path(checked.recipe.output).expanduser().absolute()
    check_wishes(output, overwrite, resume)
    check_apart(checked, output)
    take_device(checked.recipe.model.device, processes.place)
    narrow_named(
        checked.recipe.training.precision, choose_device(checked.recipe.model.device)
    )  # refused before all work
    if processes.several and isinstance(checked.method, Auto):
        raise RecipeError(
            "method auto is chosen by one process, as the time it may take is that of one. Train once without the "
            "launcher, and name the method that it takes."
        )
    if checked.recipe.training.shard_base and not processes.several:
        progress.say("training.shard_base: this process is alone, so it holds the whole base; torchrun starts several.")
    trackers_of(checked)
    checked, choice = choose(checked, progress)
    if resume and is_finished(output):
        check_finished(output, checked, progress.say)
        return output
    going = Going(output, find_checkpoint(output, checked, progress.say) if resume else None)
    try:
        outcome = _carry_out(checked, earlier, going, progress, processes)
        if outcome is None:
            return output
        outcome.choice = choice
        with completed(output, outcome.trained.interrupted) as folder:
            kept = kept_openings(output, going.began)
            write_run(outcome, folder, kept)
        if kept:
            progress.say(f"note: {worded(len(read_openings(output)))}")
    except KeyboardInterrupt:
        progress.say(unfinished(output))
        raise
    return output


@dataclass
class _Fitted:
    """A recipe whose training is over: what is known before anything is answered."""

    checked: Checked
    family: Family
    meter: Meter
    baselines: list[Scored]
    prepared: list[Prepared]
    earlier: Earlier | None
    old: OldRows | None
    planned: Plan
    cost: Cost
    warnings: list[str]
    unseen: UnseenClasses | None = None


def _carry_out(
    checked: Checked, earlier: Earlier | None, going: Going, progress: Progress, processes: Processes
) -> Outcome | None:
    """Train, and judge what came out; of several processes the first one alone judges."""
    began = time.perf_counter()
    restart_peak()  # of an earlier run in this process
    seed_everything(checked.recipe.seed)
    fitted = _fitted(checked, earlier, going, progress, processes)
    if not processes.first:
        return None
    give_back()  # what training leaves on the heap: judging and the report's libraries bring their own
    outcome = _judged(fitted, progress)
    give_back()
    outcome.processes, outcome.began = processes.facts(), going.began
    outcome.seconds = time.perf_counter() - began
    return outcome


def _fitted(
    checked: Checked, earlier: Earlier | None, going: Going, progress: Progress, processes: Processes
) -> _Fitted:
    """Open model and data, carry baselines out, and train."""
    recipe, family = checked.recipe, open_family(checked, earlier, processes)
    session, corpus = family.session, family.corpus
    meter, settings = Meter(session.backbone.device), recipe.evaluation
    learn_from_teacher(checked, [family], progress)
    facts = going.facts(checked, session, corpus, progress.say)
    processes.check_alike({key: value for key, value in facts.items() if key not in OF_A_PROCESS})
    _tell_data(family, progress)
    names = session.task.baselines if settings.baselines is None else settings.baselines or ()
    names = names if processes.first else ()
    family.look(names, meter, progress)
    baselines = family.baselines(names, meter, progress, recipe.seed)
    unseen = UnseenClasses.open(checked, family)
    together = checked.combine.keeps != "one"
    prepared = prepare_members(checked, family, processes) if together else prepare(checked, family, earlier, processes)
    introduce(prepared)
    old = old_rows(family, earlier, prepared[0].trial.tuned) if earlier and processes.first else None
    stored = [] if session.quantised is None else [session.quantised.sentence]
    warnings = [*corpus.warnings, *_unknown(family), *stored, *_method_warnings(prepared, session)]
    warnings += _kept_alone(prepared)
    if "test" not in corpus.splits and recipe.training.best != "last":
        warnings.append(
            "there is no test file or share: scores are on validation, which chooses the epoch, so they flatter."
        )
    planned = _planned(prepared, warnings, progress, processes)
    splits = [split for name, split in corpus.splits.items() if name not in ("train", "test")]
    trials = [one for item in prepared for one in item.trials]
    splits = list({id(split): split for split in (*(s for one in trials for s in one.splits), *splits)}.values())
    cost, trains = Cost(), checked.method.trains or checked.candidates
    below = kept_below(trials, splits, recipe.training, session.model_hash, progress.say, processes)
    with below if trains else nullcontext():
        if trains:
            checkpoints = going.begin(checked, facts, progress.say, processes.first)
            cost = _train(checked, prepared, Loop(trials, processes), meter, (going, checkpoints), progress, warnings)
            if checked.ensemble is not None and checked.ensemble.in_turn:
                cost = cost.plus(_train_others(checked, family, prepared, (meter, warnings, progress), processes))
        if processes.first and not together:
            family.settle(_best(prepared).trial.tuned)  # here, where what lies below is still kept
    return _Fitted(checked, family, meter, baselines, prepared, earlier, old, planned, cost, warnings, unseen)


def _compared(checked: Checked, prepared: Sequence[Prepared], best: Prepared | None) -> list[dict[str, Any]]:
    """Compare candidates; all of them answer where none is the best."""
    return [
        compared(checked, item.checked, item.trial, item.facts, chosen=best is None or item is best)
        for item in prepared
        if checked.candidates
    ]


def _best(prepared: Sequence[Prepared]) -> Prepared:
    """Return the candidate that did best."""
    return min(prepared, key=lambda item: item.trial.key)


def _judged(fitted: _Fitted, progress: Progress) -> Outcome:
    """Choose among candidates, answer the evaluated rows, and compare."""
    checked, family, prepared, warnings = fitted.checked, fitted.family, fitted.prepared, fitted.warnings
    best = _best(prepared)
    _tell_diverged(prepared, warnings, progress)
    kept = _kept(fitted, best, progress)
    tuned, items, facts = kept.tuned, kept.items, kept.facts
    lost = _tell_forgotten(family, fitted.old, tuned, warnings, progress) if fitted.earlier else {}
    answers, cost = (kept.answers, fitted.cost) if kept.answers else _answer(tuned, fitted, progress)
    besides = learned_besides(best, answers, family)
    unseen = fitted.unseen.measure(best.trial.tuned, family) if fitted.unseen is not None else {}
    warnings.extend([said for found in (besides, unseen, facts) for said in _told(found, progress)])
    trained = kept.trained(best.facts)
    scored = Scored(_named(checked, best.checked, facts), answers, trained.share, family.learned(cost))
    ours = family.judge.score(scored)
    return Outcome(
        checked=checked if facts else best.checked,
        session=family.session,
        corpus=family.corpus,
        examples=_examples(checked, prepared, best),
        preflight=trained,
        predicted_peak_bytes=fitted.planned.peak_bytes,
        trained=best.trial.trained,
        tuned=tuned,
        methods=[item.checked.method for item in items],
        rankings=[item.trial.ranking for item in items],
        settles=[item.family.settle for item in items],
        forgetting=lost,
        candidates=_compared(checked, prepared, None if facts else best),
        scheme=besides,
        ensemble=facts,
        unseen=unseen,
        ours=ours,
        baselines=fitted.baselines,
        gains=family.judge.gain(ours, fitted.baselines, family.judge.splits[-1]),
        judge=family.judge,
        samples=family.samples(tuned),
        seconds=0.0,  # known at the end
        peak_bytes=fitted.meter.peak_bytes,
        quantization=_compare_base(family, progress, warnings),
        warnings=warnings,
    )


def _kept(fitted: _Fitted, best: Prepared, progress: Progress) -> Together:
    """Take the best candidate, not yet answering, or put all together."""
    if fitted.checked.combine.keeps == "one":
        _tell_choice(fitted.prepared, best.trial, progress)
        return Together(best.trial.tuned, [best])
    joined = put_together(fitted.checked, fitted.family, fitted.prepared)
    progress.say(f"{len(joined.facts['members'])} members: {joined.facts['cost']['sentence']}")
    return joined


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


def _method_warnings(prepared: list[Prepared], session: Session) -> list[str]:
    found = [warning for item in prepared for warning in item.checked.method.warnings(session.backbone.seams)]
    return list(dict.fromkeys(found))


def _kept_alone(prepared: list[Prepared]) -> list[str]:
    """Say that the best few epochs are one; not refused, as candidates and searches may differ in their epochs."""
    keeping = [one for one in prepared if one.checked.recipe.training.keep_best > 1 and one.checked.scheme is None]
    alone = [one.checked.recipe.training for one in keeping if _scorings(one.trial) == 1]
    said = [
        f"training.keep_best={one.keep_best} keeps one state{' and no mean of several' if one.average_best else ''}: "
        "only one epoch is scored. Train more epochs, or leave it out."
        for one in alone
    ]
    return list(dict.fromkeys(said))


def _scorings(trial: Trial) -> int:
    """Count the epochs that are scored where nothing stops them early."""
    settings = trial.settings
    most = math.ceil((settings.max_steps or sys.maxsize) / trial.epoch_steps)
    return math.ceil(min(settings.epochs, most) / settings.score_every)


def _train(
    checked: Checked,
    prepared: list[Prepared],
    loop: Loop,
    meter: Meter,
    saving: tuple[Going, Checkpoints],
    progress: Progress,
    warnings: list[str],
) -> Cost:
    """Fit, and say so when the user stopped it."""
    trials, everyone, (going, checkpoints) = [item.trial for item in prepared], loop.trials, saving
    if going.checkpoint is not None:
        loop.resume(going.checkpoint, progress.say)
    with meter.stage() as cost, progress.stage("training", sum(trial.all_rows for trial in everyone)) as bar:
        bar(sum(trial.trained.examples for trial in everyone))
        tracking = Tracking(everyone, checked, going.output, progress.say)
        try:
            loop.fit(tracking.watching(bar), checkpoints, progress.say)
        finally:
            tracking.close(loop.interrupted)
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


def _train_others(
    checked: Checked,
    family: Family,
    prepared: list[Prepared],
    telling: tuple[Meter, list[str], Progress],
    processes: Processes,
) -> Cost:
    """Train the members that need the first one, one after the other; say why there are fewer, if so."""
    meter, warnings, progress = telling

    def fit(trial: Trial, facts: Preflight, what: str) -> bool:
        plan([(trial, facts)], processes)
        loop = Loop([trial], processes)
        with progress.stage(what, trial.all_rows) as bar:
            loop.fit(bar, None, progress.say)
        if loop.ended:
            progress.say(
                f"training was ended in {what}. Go on behind the first member with the same command and --resume."
            )
            raise SystemExit(ENDED)
        prepared[0].trial.trained.interrupted |= loop.interrupted
        return not trial.trained.diverged and not loop.interrupted

    if prepared[0].trial.trained.interrupted:
        raise KeyboardInterrupt  # one member is no ensemble; its checkpoint is there
    with meter.stage() as cost:
        for said in train_in_turn(checked, family, prepared, fit, processes):
            warnings.append(said)
            progress.say(f"note: {said}")
    return cost


def _examples(checked: Checked, prepared: list[Prepared], best: Prepared) -> int:
    """Count the rows that trained in the pass of the best one."""
    if checked.ensemble is not None and checked.ensemble.in_turn:
        return best.trial.trained.examples
    return sum(trial.trained.examples for item in prepared for trial in item.trials)


def _named(checked: Checked, best: Checked, facts: dict[str, Any]) -> str:
    """Name what was trained, for tables."""
    members = sum(one["taken"] for one in facts.get("members", []))
    return f"{best.method.name}, {type(checked.combine).name} of {members}" if members else str(best.method.name)


def _tell_diverged(prepared: list[Prepared], warnings: list[str], progress: Progress) -> None:
    if len(prepared) == 1:
        return
    for number, item in enumerate(prepared):
        if item.trial.trained.diverged:
            warnings.append(f"candidate {number} diverged at step {item.trial.trained.diverged} and was dropped.")
            progress.say(f"note: {warnings[-1]}")


def _tell_choice(prepared: list[Prepared], best: Trial, progress: Progress) -> None:
    """Say which candidate was chosen on validation."""
    if len(prepared) == 1:
        return
    number = next(number for number, item in enumerate(prepared) if item.trial is best)
    progress.say(f"candidate {number} of {len(prepared)} is the best on validation; only it is kept")


def _tell_forgotten(
    family: Family, old: OldRows | None, tuned: Tuned, warnings: list[str], progress: Progress
) -> dict[str, Any]:
    """Say what training on the new rows cost on the old ones."""
    found = forgotten(family, old, tuned) if old else {}
    warnings.append(worded_loss(found))
    progress.say(f"note: {warnings[-1]}")
    return found


def _told(besides: dict[str, Any], progress: Progress) -> list[str]:
    """Say what the scheme did and gained."""
    found = [*besides.get("notes", []), *besides.get("sentences", [])]
    for sentence in found:
        progress.say(f"note: {sentence}")
    return found


def _answer(tuned: Tuned, fitted: _Fitted, progress: Progress) -> tuple[dict[str, Result], Cost]:
    """Answer the evaluated splits with the kept state; where nothing trained, that is all it cost."""
    family, found = fitted.family, dict[str, Result]()
    alone = fitted.meter.stage() if not fitted.cost.peak_bytes else nullcontext(fitted.cost)
    with alone as cost, progress.stage("evaluation", len(family.judge.splits), "splits") as bar:
        for name in family.judge.splits:
            found[name] = family.answer(tuned, family.corpus.splits[name])
            bar(1)
    return found, cost


def _tell_data(family: Family, progress: Progress) -> None:
    """Say what was read."""
    for sentence in family.told():
        progress.say(sentence)
    session = family.session
    path = "flat rows, no padding" if session.backbone.proof.fast else f"padded ({session.backbone.proof.reason})"
    progress.say(f"model: {session.source.wanted}, {session.backbone.parameters:,} parameters; batches: {path}")


def _planned(prepared: list[Prepared], warnings: Sequence[str], progress: Progress, processes: Processes) -> Plan:
    """Plan the memory, and say what will train, before the first step."""
    planned = plan([one for item in prepared for one in item.probed], processes)
    for number, item in enumerate(prepared):
        checked, trial, facts = item.checked, item.trial, item.facts
        copies = len(trial.tuned.delta.copies)
        where = " and ".join(
            [*([f"{facts.layers} adapted layers"] if facts.layers else []),
             *([f"{copies} of the model's tensors"] if copies else []),
             *(["a soft prompt"] if trial.tuned.delta.prompt is not None else []),
             *(["the head"] if any(True for _ in trial.tuned.head.parameters()) else [])]
        )  # fmt: skip
        who = "training" if len(prepared) == 1 else f"candidate {number}: {checked.method.name},"
        if facts.trainable:
            progress.say(f"{who} {facts.trainable:,} parameters ({100 * facts.share:.2f} %) in {where}")
    progress.say(planned.sentence())
    if processes.several:
        parts = "" if processes.shards is None else ", and the base's blocks in parts"
        progress.say(f"{processes.count} processes share the rows of every step; only what trains is sent{parts}")
    notes = dict.fromkeys(note for item in prepared for note in item.facts.notes)
    for note in (*notes, *warnings):
        progress.say(f"note: {note}")
    return planned
