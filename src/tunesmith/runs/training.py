"""Carry out a recipe: data, prompt, tuning, evaluation, run folder."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from tunesmith.core.files import finite, write_json, write_text
from tunesmith.core.progress import Progress
from tunesmith.core.registry import find
from tunesmith.core.seeds import derived, seed_everything
from tunesmith.evaluation.predictions import Predictions
from tunesmith.evaluation.report import Content, render
from tunesmith.evaluation.statistics import Bootstrap, Difference, metrics_by_name
from tunesmith.methods.store import save_delta, save_tensors
from tunesmith.recipe.loading import Checked, load_recipe, to_yaml
from tunesmith.runs.comparing import Frozen, Judge, Meter, Scored, frozen_features, run_baselines
from tunesmith.runs.folder import FINGERPRINT, check_free, staged
from tunesmith.runs.predicted import write_predictions
from tunesmith.runs.session import Session, open_session
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.corpus import Corpus, Split, load_corpus
from tunesmith.training.loop import Loop, Trained
from tunesmith.training.preflight import Preflight, check


@dataclass
class Outcome:
    """Everything a run found, before it is written."""

    checked: Checked
    session: Session
    corpus: Corpus
    preflight: Preflight
    trained: Trained
    tuned: Tuned
    ours: Scored
    baselines: list[Scored]
    gains: list[Difference]
    judge: Judge
    seconds: float
    peak_bytes: int
    warnings: list[str]

    @property
    def split(self) -> str:
        """The split that is compared: test where there is one."""
        return self.judge.splits[-1]


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
        _write(outcome, folder)
    return output


def _carry_out(checked: Checked, progress: Progress) -> Outcome:
    began, recipe = time.perf_counter(), checked.recipe
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
    names = session.task.baselines if settings.baselines is None else settings.baselines or ()
    starting = ["train"] if names or session.task.starts_from_features else []
    frozen = frozen_features(session, corpus, [*starting, *(judge.splits if names else [])], meter, progress)
    baselines = run_baselines(names, session, corpus, frozen, judge, meter, recipe.seed)

    loop, facts = _prepare(checked, session, corpus, frozen, judge)
    warnings = [*corpus.warnings, *checked.method.warnings(session.backbone.seams)]
    _tell(session, corpus, facts, warnings, progress)
    total = recipe.training.epochs * len(corpus.splits["train"].tokens)
    with meter.stage() as cost, progress.stage("training", total) as bar:
        trained = loop.fit(bar)
    if "test" not in corpus.splits and recipe.training.best != "last":
        warnings.append("there is no test file: the scores are on validation, which chose the epoch, so they flatter.")
    if trained.interrupted:
        warnings.append(f"training was interrupted; the state after epoch {trained.best_epoch} was kept.")
    learned = cost.plus(frozen.costs["train"]) if session.task.starts_from_features else cost
    with progress.stage("evaluation", len(judge.splits), "splits") as bar:
        predictions = {}
        for name in judge.splits:
            predictions[name] = _predict(loop.tuned, corpus.splits[name])
            bar(1)
    ours = judge.score(Scored(checked.method.name, predictions, facts.share, learned))
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
        warnings=warnings,
    )


def _prepare(
    checked: Checked, session: Session, corpus: Corpus, frozen: Frozen, judge: Judge
) -> tuple[Loop, Preflight]:
    """Attach the method, make the head, and prove that a step would train them."""
    recipe, backbone, split = checked.recipe, session.backbone, corpus.splits["train"]
    seed_everything(derived(recipe.seed, "weights"))
    delta = checked.method.attach(backbone.seams)
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
    )
    facts = check(loop)
    seed_everything(derived(recipe.seed, "training"))
    backbone.seams.dropout.seed(derived(recipe.seed, "dropout"))
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


def _tell(session: Session, corpus: Corpus, facts: Preflight, warnings: list[str], progress: Progress) -> None:
    """Say what was read and what will train, before the first step."""
    for name, split in corpus.splits.items():
        lengths = split.audit.tokens
        progress.say(
            f"{name}: {split.audit.rows:,} rows, {len(split.audit.classes)} labels, tokens median "
            f"{lengths['median']} / p95 {lengths['p95']} / longest {lengths['longest']}, "
            f"{split.audit.truncated} truncated, {split.audit.duplicates} duplicates"
        )
    path = "flat rows, no padding" if session.backbone.proof.fast else f"padded ({session.backbone.proof.reason})"
    progress.say(f"model: {session.source.wanted}, {session.backbone.parameters:,} parameters; batches: {path}")
    progress.say(
        f"training {facts.trainable:,} parameters ({100 * facts.share:.2f} %) in {facts.layers} layers and the head; "
        f"predicted peak memory {facts.predicted_peak_bytes / 1e6:,.0f} MB"
    )
    for note in (*facts.notes, *warnings):
        progress.say(f"note: {note}")


# The run folder -----------------------------------------------------------------------------------------------


def _write(outcome: Outcome, folder: Path) -> None:
    checked, session = outcome.checked, outcome.session
    save_delta(folder / "delta", checked.method, outcome.tuned.delta, session.source.path)
    head = {name: tensor.detach().cpu().contiguous() for name, tensor in outcome.tuned.head.state_dict().items()}
    save_tensors(folder / "head.safetensors", head)
    write_json(folder / "labels.json", outcome.corpus.label_names)
    write_text(folder / "prompt.yaml", f"template: {checked.recipe.prompt.template!r}\n")
    settled = {**checked.resolved(), "task": session.task.describe()}
    write_text(folder / "recipe.yaml", to_yaml(settled))
    write_predictions(folder / "predictions.parquet", outcome.ours.predictions, outcome.corpus)
    lines = [json.dumps(finite(row)) + "\n" for row in outcome.trained.history]
    write_text(folder / "history.jsonl", "".join(lines))
    write_json(folder / "metrics.json", summary(outcome))
    write_text(folder / "report.html", render(_content(outcome)))
    write_json(folder / FINGERPRINT, fingerprint(session, checked, outcome.corpus.content_hash))


def summary(outcome: Outcome) -> dict[str, Any]:
    """Return what `tunesmith train --json` prints, without the folder.

    Args:
        outcome: of the run.
    Returns:
        metrics and baselines by split, and what it cost.
    """
    trained = outcome.trained
    return {
        "metrics": _plain(outcome.ours),
        "baselines": {scored.name: _plain(scored) for scored in outcome.baselines},
        "gain": [{"metric": item.metric, **item.estimate.plain(), "p_value": item.p_value} for item in outcome.gains],
        "table": [
            {"name": scored.name, "trainable_share": scored.share, **asdict(scored.cost)}
            for scored in [*outcome.baselines, outcome.ours]
        ],
        "seconds": outcome.seconds,
        "training_seconds": trained.seconds,
        "peak_memory_bytes": outcome.peak_bytes,
        "predicted_peak_memory_bytes": outcome.preflight.predicted_peak_bytes,
        "trainable_parameters": outcome.preflight.trainable,
        "examples_per_second": trained.examples / trained.seconds if trained.seconds else None,
        "steps": trained.steps,
        "best_epoch": trained.best_epoch,
        "interrupted": trained.interrupted,
        "fast_path": asdict(outcome.session.backbone.proof),
        "data": {name: split.audit.plain() for name, split in outcome.corpus.splits.items()},
        "warnings": outcome.warnings,
    }


def _plain(scored: Scored) -> dict[str, dict[str, dict[str, float]]]:
    return {split: {name: value.plain() for name, value in scores.items()} for split, scores in scored.scores.items()}


def fingerprint(session: Session, checked: Checked, data_hash: str) -> dict[str, Any]:
    """Identify what a run was made of.

    Args:
        session: model and tokenizer.
        checked: the recipe.
        data_hash: of the rows.
    Returns:
        Versions, seed and hashes.
    """
    return {
        "tunesmith": _version("tunesmith"),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "transformers", "tokenizers", "safetensors", "numpy")},
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
        "device": str(session.backbone.device),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": checked.recipe.seed,
        "base_model": session.source.wanted,
        "base_model_hash": session.model_hash,
        "tokenizer_hash": session.tokenizer_hash,
        "max_tokens": session.max_tokens,
        "data_hash": data_hash,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _content(outcome: Outcome) -> Content:
    checked, split = outcome.checked, outcome.split
    rows = outcome.corpus.splits[split]
    judge = outcome.judge
    title = f"{checked.method.name} on {outcome.session.source.wanted}: {checked.task.name}"
    sentences = [
        f"{outcome.corpus.splits['train'].audit.rows:,} training rows, {len(outcome.corpus.label_names)} labels, "
        f"{checked.recipe.training.epochs} epochs; scored on {rows.audit.rows:,} rows of {split}. "
        f"Intervals: {100 * judge.bootstrap.confidence:.0f} %, {judge.bootstrap.resamples} bootstrap resamples."
    ]
    facts = fingerprint(outcome.session, checked, outcome.corpus.content_hash)
    measured = {
        "training speed": f"{outcome.trained.examples / max(outcome.trained.seconds, 1e-9):.1f} examples/s",
        "predicted / measured peak memory": f"{outcome.preflight.predicted_peak_bytes / 1e6:.0f} / "
        f"{outcome.ours.cost.peak_bytes / 1e6:.0f} MB",
        "trainable parameters": f"{outcome.preflight.trainable:,}",
    }
    return Content(
        title=title,
        summary=sentences,
        contenders=[scored.contender(split) for scored in [*outcome.baselines, outcome.ours]],
        split=split,
        metrics=[metric.name for metric in judge.metrics],
        differences=outcome.gains,
        history=outcome.trained.history,
        losses=outcome.trained.losses,
        best_epoch=outcome.trained.best_epoch,
        score=judge.metrics[0].name,
        predictions=outcome.ours.predictions[split],
        label_names=outcome.corpus.label_names,
        text=rows.text,
        audits={name: part.audit.plain() for name, part in outcome.corpus.splits.items()},
        warnings=outcome.warnings,
        recipe=to_yaml({**checked.resolved(), "task": outcome.session.task.describe()}),
        facts={**measured, **{key: str(value) for key, value in facts.items()}},
    )
