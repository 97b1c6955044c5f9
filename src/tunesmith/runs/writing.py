"""Write a run folder: delta, head, scores, predictions, report, fingerprint."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

import torch

from tunesmith.core.files import finite, hash_of, write_atomic, write_json, write_text
from tunesmith.core.registry import components
from tunesmith.evaluation.page import put_openings
from tunesmith.evaluation.report import Content, render
from tunesmith.evaluation.written import Written
from tunesmith.methods.base import Method
from tunesmith.methods.store import save_delta, save_tensors
from tunesmith.recipe.loading import Checked, to_yaml
from tunesmith.recipe.starting import find_run
from tunesmith.runs.augmentations.base import AUGMENTED
from tunesmith.runs.comparing import Scored
from tunesmith.runs.family import Family
from tunesmith.runs.folder import BASE, FINGERPRINT, LEARNED, best_folder, member_folder
from tunesmith.runs.openings import FILE as OPENINGS
from tunesmith.runs.openings import SPLITS, opening, read_openings, row_hashes, worded
from tunesmith.runs.outcome import Outcome
from tunesmith.runs.predicted import write_predictions
from tunesmith.runs.prompted import used_prompt, write_prompt
from tunesmith.runs.session import Session
from tunesmith.tasks.ensemble import Ensemble
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.cleaning import changed_rows, cleaning_counts
from tunesmith.training.corpus import Corpus, Split
from tunesmith.training.findings import LIST
from tunesmith.training.reading import resolve_path


def write_run(outcome: Outcome, folder: Path, kept: str = "") -> None:
    """Write every file of a run.

    Args:
        outcome: of the run.
        folder: to write into, empty.
        kept: lines of looks at its test rows before it went on.
    Raises:
        CheckpointError: it cannot be written.
    """
    checked, session = outcome.checked, outcome.session
    if session.made is not None:
        shutil.copytree(session.made.path, folder / BASE)
    base = BASE if session.made else session.source.path
    members = outcome.tuned.members if isinstance(outcome.tuned, Ensemble) else [outcome.tuned]
    for number, (method, member) in enumerate(zip(outcome.methods, members, strict=True)):
        _write_member(member_folder(folder, number), method, member, base)
        _write_best(outcome, folder, number, base)
    if isinstance(outcome.tuned, Ensemble) and outcome.tuned.learned:
        learned = {name: torch.from_numpy(found.copy(order="C")) for name, found in outcome.tuned.learned.items()}
        save_tensors(folder / LEARNED, learned)
    write_json(folder / "labels.json", outcome.corpus.label_names)
    if session.task.family == "prompting":
        write_prompt(session, folder)
    else:
        write_text(folder / "prompt.yaml", to_yaml(checked.recipe.prompt.model_dump()))
    write_text(folder / "recipe.yaml", to_yaml(settled(outcome.checked, outcome.session)))
    write_predictions(folder / "predictions.parquet", outcome.ours.predictions, outcome.corpus)
    write_atomic(folder / SPLITS, lambda path: write_splits(path, outcome.corpus))
    if "test" in outcome.judge.splits:
        write_text(folder / OPENINGS, kept + _opening(outcome))
    lines = [json.dumps(finite(row)) + "\n" for row in outcome.trained.history]
    write_text(folder / "history.jsonl", "".join(lines))
    found = [*changed_rows(outcome.corpus.files), *outcome.corpus.findings]
    if found or checked.recipe.data.cleaning:
        write_text(folder / LIST, "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in found))
    forms = [{"by": one.by, **row} for one in outcome.corpus.forms for row in one.rows()]
    if forms:
        write_text(folder / AUGMENTED, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in forms))
    write_json(folder / "metrics.json", summary(outcome))
    write_text(folder / "report.html", put_openings(render(_content(outcome)), worded(len(read_openings(folder)))))
    write_json(folder / FINGERPRINT, fingerprint(session, checked, outcome.corpus))


def write_start(folder: Path, checked: Checked, family: Family, tuned: Tuned) -> None:
    """Write what another run needs to start from this one, and nothing about how well it answers.

    Args:
        folder: to write into, empty.
        checked: the recipe.
        family: its model and data.
        tuned: with the state to start from.
    Raises:
        CheckpointError: it cannot be written.
    """
    session = family.session
    _write_member(folder, checked.method, tuned, BASE if session.made else session.source.path)
    write_json(folder / "labels.json", family.corpus.label_names)
    write_text(folder / "recipe.yaml", to_yaml(settled(checked, session)))
    write_json(folder / FINGERPRINT, fingerprint(session, checked, family.corpus))


def _write_member(folder: Path, method: Method, tuned: Tuned, base: str) -> None:
    """Write the delta and the head of a run, or of one of several that answer together."""
    save_delta(folder / "delta", method, tuned.delta, base)
    head = {name: tensor.detach().cpu().contiguous() for name, tensor in tuned.head.state_dict().items()}
    if head:
        save_tensors(folder / "head.safetensors", head)


def _opening(outcome: Outcome) -> str:
    """Record that training ends with a look at the test rows."""
    test, scores = outcome.corpus.splits["test"], outcome.ours.scores["test"]
    rows = len(test.tokens)
    values = {name: one.value for name, one in scores.items()}
    return opening("train", test.examples.path, rows, rows, values, outcome.began)


def _write_best(outcome: Outcome, folder: Path, number: int, base: str) -> None:
    """Write the states of a member's best epochs, where more than one was kept."""
    states = outcome.rankings[number].states
    if outcome.checked.recipe.training.keep_best == 1 or not states:
        return
    tuned = outcome.tuned.members[number] if isinstance(outcome.tuned, Ensemble) else outcome.tuned
    own = tuned.state()
    for one in states:
        tuned.restore(one.state)
        outcome.settles[number](tuned)
        _write_member(best_folder(folder, number, one.epoch), outcome.methods[number], tuned, base)
    tuned.restore(own)
    outcome.settles[number](tuned)


def write_splits(path: Path, corpus: Corpus) -> None:
    """Write which rows of which file each split holds, and when it was scored, as JSON; no list of them is held.

    Rows of a second and further file that are read as one with the first stand under "more", file by file.

    Args:
        path: to write to.
        corpus: the data.
    """
    opened = {"validation": "after every epoch", "test": "once, after training"}
    with open(path, "w", encoding="utf-8") as file:
        begin = "{"
        for name, split in corpus.splits.items():
            own = split.examples.where[0].rpartition(" ")[0]
            facts = {
                "file": split.examples.path,
                "rows": own,
                "scored": opened.get(name, "trains"),
                **({"hashes": row_hashes(split.tokens)} if name == "test" else {}),
            }
            file.write(f"{begin}\n  {json.dumps(name)}: ")
            _write_numbers(file, facts, split, own)
            others = dict.fromkeys(word for word, _ in _placed_apart(split) if word != own)
            for number, word in enumerate(others):
                more, _, rows = word.rpartition(", ")
                file.write(", " if number else ', "more": [')
                _write_numbers(file, {"file": more, "rows": rows}, split, word)
                file.write("}")
            file.write("]}" if others else "}")
            begin = ","
        file.write("\n}\n")


def _write_numbers(file: TextIO, facts: dict[str, Any], split: Split, word: str) -> None:
    """Write facts and the numbers of the rows whose place begins with a word, as an object that is left open."""
    file.write(f'{json.dumps(facts, ensure_ascii=False)[:-1]}, "numbers": [')
    places = (number for own, number in _placed_apart(split) if own == word)
    file.writelines(f"{', ' if count else ''}{place}" for count, place in enumerate(places))
    file.write("]")


def _placed_apart(split: Split) -> Iterator[tuple[str, str]]:
    """Go through the places of a split's rows: what stands in front of the number, and the number."""
    for row in split.index:
        word, _, number = split.examples.where[int(row)].rpartition(" ")
        yield word, number


def settled(checked: Checked, session: Session) -> dict[str, Any]:
    """Return the recipe with everything decided and every path absolute, so that it means the same anywhere.

    Args:
        checked: the recipe.
        session: its model.
    Returns:
        Plain values.
    """
    values = {**checked.resolved(), "task": session.task.describe()}
    if values["start_from"] is not None:
        values["start_from"] = str(Path(values["start_from"]).absolute())
    if values["data"]["teacher"] is not None:
        values["data"]["teacher"] = str(find_run(values["data"]["teacher"], checked.folder))
    if session.task.family == "prompting":
        values["prompt"] |= used_prompt(session).model_dump(mode="json")
    source = session.source
    if session.made is not None:
        values["model"] |= {"new": None, "name": BASE}  # found beside the run's recipe, wherever the run is moved
    elif source.local and source.wanted not in components("models"):
        values["model"]["name"] = str(Path(source.path).absolute())
    if values["attributes"] is not None:
        values["attributes"]["table"] = str(
            Path(resolve_path(values["attributes"]["table"], checked.folder)).absolute()
        )
    values["data"]["also_train"] = [_found(path, checked.folder) for path in values["data"]["also_train"]]
    for split in ("train", "validation", "test", "unlabelled", "unseen", "label_descriptions"):
        path = values["data"][split]
        if isinstance(path, str):
            values["data"][split] = _found(path, checked.folder)
    return values


def _found(path: str, folder: Path) -> str:
    """Return a file's path absolute where it exists; else it names a data set elsewhere."""
    found = Path(resolve_path(path, folder))
    return str(found.absolute()) if found.exists() else path


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
        "predicted_peak_memory_bytes": outcome.predicted_peak_bytes,
        "trainable_parameters": outcome.preflight.trainable,
        "examples_per_second": outcome.examples / trained.seconds if trained.seconds else None,
        "steps": trained.steps,
        "best_epoch": trained.best_epoch,
        "best_epochs": [one.epoch for one in outcome.rankings[0].states],
        "averaged_epochs": trained.averaged,
        "interrupted": trained.interrupted,
        "fast_path": asdict(outcome.session.backbone.proof),
        "data": {name: split.audit.plain() for name, split in outcome.corpus.splits.items()},
        "cleaning": cleaning_counts(outcome.corpus.files, outcome.corpus.findings),
        "quantization": outcome.quantization,
        "candidates": outcome.candidates,
        "choice": outcome.choice,
        "processes": outcome.processes,
        "forgetting": outcome.forgetting,
        "scheme": outcome.scheme,
        "unseen": outcome.unseen,
        "ensemble": outcome.ensemble,
        "samples": outcome.samples,
        "signatures": _signatures(outcome),
        "warnings": outcome.warnings,
    }


def _signatures(outcome: Outcome) -> dict[str, str]:
    """Say how metrics that exist in several versions were computed."""
    found = outcome.ours.predictions[outcome.split]
    signed = [metric for metric in outcome.judge.metrics if hasattr(metric, "signature")]
    return {m.name: m.signature(found) for m in signed if isinstance(found, Written) and found.answers}


def _plain(scored: Scored) -> dict[str, dict[str, dict[str, float]]]:
    return {split: {name: value.plain() for name, value in scores.items()} for split, scores in scored.scores.items()}


def fingerprint(session: Session, checked: Checked, corpus: Corpus) -> dict[str, Any]:
    """Identify what a run was made of.

    Args:
        session: model and tokenizer.
        checked: the recipe.
        corpus: the data.
    Returns:
        Versions, seed and hashes.
    """
    return {
        **versions(),
        "device": str(session.backbone.device),
        "seed": checked.recipe.seed,
        "base_model": session.source.wanted,
        "base_model_hash": session.model_hash,
        "tokenizer_hash": session.tokenizer_hash,
        "max_tokens": session.max_tokens,
        "data_hash": corpus.content_hash,
        "labels_hash": hash_of(corpus.label_names),
    }


def versions() -> dict[str, Any]:
    """Say what a run is made with: versions, machine and time.

    Returns:
        Plain values.
    """
    return {
        "tunesmith": _version("tunesmith"),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "transformers", "tokenizers", "safetensors", "numpy")},
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache  # a look into the packages' folders takes longer than the rest of a fingerprint
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _content(outcome: Outcome) -> Content:
    checked, split = outcome.checked, outcome.split
    rows = outcome.corpus.splits[split]
    judge, tokenizer = outcome.judge, outcome.session.tokenizer
    title = f"{checked.method.name} on {outcome.session.source.wanted}: {checked.task.name}"
    train = outcome.corpus.splits["train"].audit
    what = f"{train.learned:,} learned tokens" if train.learned else f"{len(outcome.corpus.label_names)} labels"
    sentences = [
        f"{train.rows:,} training rows, {what}, "
        f"{checked.recipe.training.epochs} epochs; scored on {rows.audit.rows:,} rows of {split}. "
        f"Intervals: {100 * judge.bootstrap.confidence:.0f} %, Wilson's for shares of rows and "
        f"{judge.bootstrap.resamples} bootstrap resamples for other metrics.",
        *([outcome.choice["sentence"]] if outcome.choice else []),
    ]
    facts = fingerprint(outcome.session, checked, outcome.corpus)
    measured = {
        "training speed": f"{outcome.examples / max(outcome.trained.seconds, 1e-9):.1f} examples/s",
        "predicted / measured peak memory": f"{outcome.predicted_peak_bytes / 1e6:.0f} / "
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
        averaged=outcome.trained.averaged,
        score=next((m.name for m in judge.metrics if m.reads != "answers"), "validation loss"),
        predictions=outcome.ours.predictions[split],
        label_names=outcome.corpus.label_names,
        text=rows.text if outcome.session.chat is None else lambda row: str(tokenizer.decode(rows.tokens[row])),
        audits={name: part.audit.plain() for name, part in outcome.corpus.splits.items()},
        warnings=outcome.warnings,
        recipe=to_yaml(settled(outcome.checked, outcome.session)),
        facts={**measured, **{key: str(value) for key, value in facts.items()}},
        candidates=outcome.candidates,
        ensemble=outcome.ensemble,
        samples=outcome.samples,
    )
