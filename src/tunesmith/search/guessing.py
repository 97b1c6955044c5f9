"""From a data file to the task that it is for, or to a sentence about what is missing."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.errors import DataError, RecipeError
from tunesmith.core.registry import components, find
from tunesmith.data.examples import find_reader, path_text
from tunesmith.data.inspection import Inspection
from tunesmith.models.loading import Source, hollow_model, load_config, locate

DEFAULT_MODEL = "minilm"
FEW = 16  # rows per label up to which examples are few
_TESTED = 20  # rows of the rarest label from which a test share is held out
_TWO = 2  # labels that there have to be


@dataclass(frozen=True)
class Given:
    """What a plan is made for.

    Args:
        path: of the data, as the user wrote it.
        task: that the data are for.
        why: sentences about the guess.
        rows: of the file. [count]
        facts: what `Inspection` found.
        data: keys of a recipe's data.
        model: as the user wrote it.
        parameters: of the model. [count]
    """

    path: str
    task: str
    why: list[str]
    rows: int
    facts: Mapping[str, Any]
    data: Mapping[str, Any]
    model: str
    parameters: int

    @property
    def family(self) -> str:
        """How recipes of the task are carried out: labelling, generating or prompting."""
        return str(find("tasks", self.task).family)

    @property
    def reads_images(self) -> bool:
        """Whether the rows are images."""
        return bool(find("tasks", self.task).reads == "images")

    @property
    def rows_per_label(self) -> float:
        """The median; 0 without labels. [count]"""
        counts = self.facts["labels"].values() if self.family == "labelling" else ()
        return float(statistics.median(counts)) if counts else 0.0

    @property
    def few(self) -> bool:
        """Whether labels have few rows."""
        return 0 < self.rows_per_label <= FEW

    def plain(self) -> dict[str, Any]:
        """Return what was found as plain values."""
        keys = ("what", "text", "label", "characters", "words", "languages", "duplicates", "conflicts")
        return {
            "file": self.path,
            "task": self.task,
            "why": self.why,
            "rows": self.rows,
            "labels": len(self.facts["labels"]),
            "rows_per_label": self.rows_per_label or None,
            **{key: self.facts[key] for key in keys},
            "model": self.model,
            "parameters": self.parameters,
        }


def look(path: str | Path, model: str | None, wanted: Mapping[str, Any]) -> Given:
    """Look through a data file and guess what it is for.

    Args:
        path: of the data.
        model: name or folder; minilm for texts with labels when None.
        wanted: keys of a recipe that the user set: its task and columns are not guessed.
    Returns:
        The guess.
    Raises:
        DataError: the file cannot be read, or nothing tells what it is for.
        RecipeError: a task needs a model of its own, and none is named.
    """
    data, name = dict(wanted.get("data") or {}), path_text(path)
    reader = find_reader(name, data.get("encoding", "utf-8"), columns=data.get("columns", ()))
    seen = Inspection(reader, data.get("text"), data.get("label"), near=0.0)
    facts = seen.plain()
    named = wanted.get("task") or {}
    task, why = _task(seen, str(name), named.get("name"))
    source = _source(model, task)
    keys = _columns(task, facts) | _held_out(task, facts) | data
    return Given(
        path=name,
        task=task,
        why=[*why, *facts["why"]],
        rows=facts["rows"],
        facts=facts,
        data=keys | {"train": whole(name)},
        model=_named(source),
        parameters=_size(source, task),
    )


def whole(name: str) -> str:
    """Name a file so that it means the same wherever a recipe stands.

    Args:
        name: as the user wrote it; ~ stands for the home folder.
    Returns:
        Its absolute path; the name itself where there is no such file, as it may be that of a data set elsewhere.
    """
    path = Path(os.path.expanduser(name))  # leaves ~$1.csv alone, where Path's own raises an error
    return str(path.absolute()) if path.exists() else name


def _task(seen: Inspection, name: str, named: str | None) -> tuple[str, list[str]]:
    """Say what a file is for."""
    labels = len(seen.labels)
    if named is not None:
        if find("tasks", named, "task").family != "generating" and not labels:
            raise DataError(
                f"{name}: the task {named} learns labels, and no column looks like one. Name it with data.label=COLUMN."
            )
        return named, [f"the task is {named}, as you say"]
    if seen.files is not None:
        return _image_task(seen, name)
    form = None if seen.form is None else components("formats")[seen.form]
    if form is not None and (seen.label is None or seen.label in form.columns):
        task = "question-answering-generative" if seen.form == "question-answer" else "instruction-tuning"
        return task, [f"rows are questions and answers: {form.holds}"]
    constant = next((one.name for one in seen.columns.values() if len(one.values) == 1), None)
    alone = seen.label if labels < _TWO else None
    if seen.text is not None and (alone or (seen.label is None and constant)):
        raise DataError(
            f"{name}: column '{alone or constant}' holds one label in every row, so there is nothing to tell apart. "
            "Add rows of another label, or name another column with data.label=COLUMN."
        )
    if seen.label is not None and seen.text is not None:
        return "text-classification", [f"every row has a text and one of {labels:,} labels"]
    if type(seen.reader).only_column is not None:
        return "text-generation", ["it is plain text without labels or answers"]
    columns = ", ".join(f"'{column}'" for column in seen.names)
    raise DataError(
        f"{name}: {seen.plain()['what']}, in {len(seen.names)} column{'s' * (len(seen.names) != 1)} ({columns}): this "
        "does not say what is to be learned. A label is a column of its own (data.label=COLUMN), questions and answers "
        "are columns of one of the forms of `tunesmith list formats`; texts to go on with need task=text-generation."
    )


def _image_task(seen: Inspection, name: str) -> tuple[str, list[str]]:
    labels = len(seen.labels)
    if seen.holds != "images":
        raise DataError(f"{name}: {seen.holds or 'files'}: no task learns from these. Images with one label can be.")
    if labels < _TWO:
        raise DataError(
            f"{name}: images of {labels} label{'s' * (labels != 1)}, so there is nothing to tell apart. Put the images "
            "of every label into a folder of its own."
        )
    return "image-classification", [f"images in folders of {labels:,} labels"]


def _source(model: str | None, task: str) -> Source:
    """Find the model; where none is named, the embedded one reads texts with labels."""
    if model is None and task != "text-classification":
        raise RecipeError(
            f"model: the data are for {task}, and no model for that is embedded. Name one: --model FOLDER, or a hub "
            "name owner/name."
        )
    return locate(model or DEFAULT_MODEL)


def _named(source: Source) -> str:
    """Name a model so that it means the same wherever the recipe stands."""
    embedded = source.wanted in components("models")
    return str(Path(source.path).absolute()) if source.local and not embedded else source.wanted


def _size(source: Source, task: str) -> int:
    """Count the parameters of a model; no weights are loaded. [count]"""
    opens = find("tasks", task)().suited(load_config(source)).opens
    return int(hollow_model(source, opens).num_parameters())


def _columns(task: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Name the columns that a task reads."""
    names = {"text": facts["text"], "label": facts["label"]} if find("tasks", task).family != "generating" else {}
    if task == "text-generation":
        names = {"text": facts["text"]}
    return {key: name for key, name in names.items() if name is not None}


def _held_out(task: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Hold rows out: to choose the epoch, and where there are enough of them, to be scored once."""
    if find("tasks", task).family == "generating":
        return {"validation": 0.1}
    counts = facts["labels"].values()
    if statistics.median(counts) <= FEW:
        return {"validation": 0.2}
    return {"validation": 0.1, "test": 0.1} if min(counts) >= _TESTED else {"validation": 0.1}
