"""What a run that goes on from another one forgot: the earlier run's rows, answered before and after."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.errors import CheckpointError, DataError
from tunesmith.data.audit import Hashes, text_hashes
from tunesmith.evaluation.statistics import Result, estimate, paired_difference
from tunesmith.runs.continuing import Earlier
from tunesmith.runs.family import Family
from tunesmith.runs.session import Session
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.corpus import Split


@dataclass(frozen=True)
class OldRows:
    """Rows that the earlier run was scored on.

    Args:
        path: of their file.
        held_out: whether they were held out of the run's training file.
        split: the rows; labels are codes of the new run.
        before: the answers before training goes on.
    """

    path: str
    held_out: bool
    split: Split
    before: Result


def old_rows(family: Family, earlier: Earlier, tuned: Tuned) -> OldRows | None:
    """Read what the earlier run was scored on and let it answer once more.

    Args:
        family: of the new run.
        earlier: the run.
        tuned: with its delta, before the first step.
    Returns:
        Its test rows, else its validation rows, files or held out of its training file; None when they are gone.
    Raises:
        DataError: a test or validation file that cannot be used any more.
    """
    data, labels = earlier.checked.recipe.data, family.corpus.label_names
    # Rows are cut as the run cut them, so that its scores on them are those that it reported.
    session = replace(family.session, max_tokens=earlier.fingerprint.get("max_tokens", family.session.max_tokens))
    for name, wanted in (("test", data.test), ("validation", data.validation)):
        path, split = data.train, None
        if isinstance(wanted, float):
            split = _held_out(family, earlier, session, name)
        elif wanted is not None and Path(wanted).exists():
            path, split = wanted, family.read_file(wanted, earlier.checked, session, labels)
        if split is not None:
            return OldRows(path, isinstance(wanted, float), split, family.first_recall(earlier, tuned, split))
    return None


def _held_out(family: Family, earlier: Earlier, session: Session, name: str) -> Split | None:
    """Hold the same rows out again; none when the file changed, so that rows it trained on could be among them."""
    recipe = earlier.checked.recipe
    data = recipe.data.model_copy(update={"augmentation": []})  # of rows that train alone
    if isinstance(data.test, str):  # it is gone
        if data.leakage == "drop":  # the rows that it took out of train are not known any more
            return None
        data = data.model_copy(update={"test": None})
    if not Path(data.train).exists():
        return None
    alone = replace(earlier.checked, recipe=recipe.model_copy(update={"data": data}))
    try:
        corpus = family.read(alone, session, family.corpus.label_names)
    except (DataError, CheckpointError):  # a file, or a model that cleaned it, is gone or another one
        return None
    same = corpus.content_hash.split("+")[0] == str(earlier.fingerprint.get("data_hash")).split("+")[0]
    return corpus.splits[name] if same else None


def forgotten(family: Family, old: OldRows, tuned: Tuned) -> dict[str, Any]:
    """Compare the answers on old rows before and after training went on.

    Args:
        family: of the new run.
        old: rows and earlier answers.
        tuned: the model after training.
    Returns:
        Plain values; "change" is after minus before.
    """
    before, after = old.before, family.recall(tuned, old.split)
    metrics, bootstrap = family.recall_metrics(), family.judge.bootstrap
    scores = {"before": estimate(before, metrics, bootstrap), "after": estimate(after, metrics, bootstrap)}
    first = metrics[0]
    gain = paired_difference(after, before, first, bootstrap)
    ends = sorted(_signed(value, first.higher_is_better) for value in (gain.estimate.low, gain.estimate.high))
    return {
        "data": old.path,
        "held_out": old.held_out,
        "rows": before.rows,
        "also_in_train": int(np.isin(_hashes(old.split), _hashes(family.corpus.splits["train"])).sum()),
        **{when: {name: value.plain() for name, value in found.items()} for when, found in scores.items()},
        "change": {
            "metric": first.name,
            "higher_is_better": first.higher_is_better,
            "value": _signed(gain.estimate.value, first.higher_is_better),
            "low": ends[0],
            "high": ends[1],
            "p_value": gain.p_value,
        },
    }


def _signed(gain: float, higher_is_better: bool) -> float:
    return gain if higher_is_better else -gain


def _hashes(split: Split) -> Hashes:
    return text_hashes(row["text"] for row in split.examples.rows(split.index))


def worded(found: dict[str, Any]) -> str:
    """Say in a sentence what was forgotten.

    Args:
        found: by `forgotten`; empty when the rows are gone.
    Returns:
        The sentence.
    """
    if not found:
        return (
            "start_from: the rows that the earlier run was scored on are not there any more as they were, so what was "
            "forgotten is not known."
        )
    change = found["change"]
    name = change["metric"]
    kept = ", held out of its training" if found["held_out"] else ""
    seen = f"; {found['also_in_train']:,} of them also stand in the new training rows" if found["also_in_train"] else ""
    return (
        f"on the earlier run's data ({found['rows']:,} rows of {found['data']}{kept}{seen}) {name} went from "
        f"{found['before'][name]['value']:.4f} to {found['after'][name]['value']:.4f} "
        f"({change['value']:+.4f}, {change['low']:+.4f} to {change['high']:+.4f}; "
        f"{'higher' if change['higher_is_better'] else 'lower'} is better)."
    )
