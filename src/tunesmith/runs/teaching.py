"""Knowledge distillation: training rows learn what another run answers, besides their labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunesmith.core.arrays import Array
from tunesmith.core.errors import DataError, TunesmithError
from tunesmith.core.progress import Progress
from tunesmith.recipe.loading import Checked
from tunesmith.recipe.schema import DataSettings
from tunesmith.recipe.starting import find_run
from tunesmith.runs.family import Family
from tunesmith.runs.run import Run


def learn_from_teacher(checked: Checked, families: Sequence[Family], progress: Progress) -> None:
    """Give each training row the mix of its label and the teacher's answer to learn, where the recipe has a teacher.

    A row learns (1 - weight) y + weight q, where q_c is proportional to p_c ** (1 / temperature) of the teacher's
    probabilities p.

    Args:
        checked: the recipe.
        families: with the training rows, one or those of several folds; they get what they learn.
        progress: told how well the teacher knows the rows.
    Raises:
        TunesmithError: the teacher is no finished run, knows other labels, or cannot read the rows.

    Source: Hinton et al. 2015, arXiv:1503.02531. Differs: the temperature is of the teacher's answers alone; the
        student learns and answers at 1, so no factor of temperature ** 2 is needed.
    """
    if checked.recipe.data.teacher is None:
        return
    try:
        teacher = Run.load(find_run(checked.recipe.data.teacher, checked.folder))
        for family in families:
            _teach(teacher, checked.recipe.data, family, progress)
    except TunesmithError as error:
        error.args = (f"data.teacher: {error}",)
        raise


def _teach(teacher: Run, data: DataSettings, family: Family, progress: Progress) -> None:
    names, split = family.corpus.label_names, family.corpus.splits["train"]
    _check_labels(teacher, names)
    with progress.stage(f"answers of {teacher.folder.name}", len(split.index)) as bar:
        found = teacher.chances(split.examples, split.index)[:, [teacher.labels.index(name) for name in names]]
        bar(len(split.index))
    right = float((found.argmax(1) == split.labels).mean())
    progress.say(f"teacher {teacher.folder.name}: right on {100 * right:.1f} % of {len(found):,} training rows")
    own, answers = np.eye(len(names))[split.labels], _tempered(found, data.teacher_temperature)
    split.soft = ((1 - data.teacher_weight) * own + data.teacher_weight * answers).astype(np.float32)


def _check_labels(teacher: Run, names: list[str]) -> None:
    pairs = (("rows", set(names) - set(teacher.labels)), ("teacher", set(teacher.labels) - set(names)))
    only = [f"{who} alone: {', '.join(sorted(labels)[:5])}" for who, labels in pairs if labels]
    if only:
        raise DataError(
            f"{teacher.folder} knows other labels than the training rows ({'; '.join(only)}). A teacher answers with "
            "the labels that are learned: train one on these labels, or leave it out."
        )


def _tempered(chances: Array, temperature: float) -> Array:
    """Flatten answers, or sharpen them.

    Args:
        chances: (rows, C).
        temperature: above 1 flattens.
    Returns:
        (rows, C), each row summing to 1.
    """
    logs = np.log(np.clip(chances, np.finfo(np.float64).tiny, 1)) / temperature
    powers: Array = np.exp(logs - logs.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)
