"""From data files to token rows: read, align, split, check, tokenise, and say what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.errors import DataError, RecipeError
from tunesmith.core.files import hash_of
from tunesmith.core.seeds import derived
from tunesmith.data import audit
from tunesmith.data.augmentations.base import build_augmentations
from tunesmith.data.augmented import AugmentedRows
from tunesmith.data.descriptions import label_texts, same_numbers, spelled_alike
from tunesmith.data.examples import Examples
from tunesmith.data.soft import soft_labels
from tunesmith.data.splitting import Index
from tunesmith.data.token_store import tokenize_once
from tunesmith.data.tokens import RowMaker, TokenRows, VariedRows
from tunesmith.data.weights import row_weights
from tunesmith.prompts.template import Template
from tunesmith.recipe.schema import DataSettings
from tunesmith.tasks.rejecting import OUTSIDE
from tunesmith.training.cleaning import cleaning_sentences, filter_training, steps_without_model
from tunesmith.training.findings import Finding
from tunesmith.training.parts import (
    Part,
    hold_out,
    hold_out_fold,
    keep_near_together,
    of_types,
    separate,
    shares,
    split_by_columns,
)
from tunesmith.training.reading import read_labelled, resolve_path

FEW = 30  # rows below which a score is remarked on


@dataclass
class Split:
    """Rows of one split, ready for the model.

    Args:
        name: train, validation or test.
        examples: the file they come from.
        index: (rows,), which rows of the file.
        labels: (rows,), int64, training codes.
        tokens: the rows' token ids.
        audit: facts about the split.
        remarks: sentences for the user.
        kept_in: file of an earlier run that the tokens were read from; None where they were made now.
        soft: (rows, C), probabilities that are learned in place of the labels; None where the labels are.
        weights: (rows,), factor of each row's loss, of any mean; None where all weigh the same.
    """

    name: str
    examples: Examples
    index: Index
    labels: np.ndarray[Any, np.dtype[np.int64]]
    tokens: TokenRows
    audit: audit.Audit
    remarks: list[str] = field(default_factory=list)
    kept_in: Path | None = None
    soft: np.ndarray[Any, np.dtype[np.float32]] | None = None
    weights: np.ndarray[Any, np.dtype[np.float64]] | None = None

    def taught(self, row: int, shares: Sequence[tuple[int, float]] = ()) -> int | list[float]:
        """Return what one row teaches.

        Args:
            row: 0 <= row < rows of the split.
            shares: rows that it is made of, and how much of it is of each; none where it is itself. Split has `soft`.
        Returns:
            Its class, or C probabilities: of several rows the mean of theirs, weighted by the shares.
        """
        if self.soft is None:
            return int(self.labels[row])
        mixed = [share * self.soft[one].astype(np.float64) for one, share in shares or ((row, 1.0),)]
        return [float(chance) for chance in np.sum(mixed, axis=0)]

    @property
    def origin(self) -> str:
        """Where the tokens come from when they were not made now, to be added to a sentence."""
        return f"; its tokens were kept by an earlier run ({self.kept_in})" if self.kept_in else ""

    def place(self, row: int) -> str:
        """Say where one of the split's rows stands.

        Args:
            row: 0 <= row < rows that train.
        Returns:
            Its place in the file; what stands behind the split's own rows is a label's text.
        """
        return self.examples.where[int(self.index[row])] if row < len(self.index) else "the text of a label"

    def text(self, row: int) -> str:
        """Return the text of one of the split's rows.

        Args:
            row: 0 <= row < rows of the split.
        Returns:
            The text as the file has it.
        """
        return self.examples.text(int(self.index[row]))


@dataclass
class Unlabelled:
    """Rows without a label, to learn from besides.

    Args:
        split: the rows in use; their labels are -1.
        rows: of the file. [count]
        dropped: rows left out, by reason.
        truth: (rows,), codes that the file has for the rows, -1 for a label that train lacks; None where it is not
            read. It is for counting only.
        remarks: sentences for the user.
    """

    split: Split
    rows: int
    dropped: dict[str, int]
    truth: np.ndarray[Any, np.dtype[np.int64]] | None = None
    remarks: list[str] = field(default_factory=list)


@dataclass
class Corpus:
    """All splits of a run.

    Args:
        label_names: in the order of the codes, sorted.
        splits: by name: train, validation, and test where given.
        warnings: sentences for the user.
        content_hash: of everything read.
        label_texts: of each label its name in words, and its description where there is one.
        unlabelled: rows without a label, where the recipe names a file of them.
        findings: what leakage and cleaning did to training rows; rows whose texts changed are counted in the examples.
        forms: of training texts that a model wrote before training, with what draws among them.
    """

    label_names: list[str]
    splits: dict[str, Split]
    warnings: list[str] = field(default_factory=list)
    content_hash: str = ""
    label_texts: list[list[str]] = field(default_factory=list)
    unlabelled: Unlabelled | None = None
    findings: list[Finding] = field(default_factory=list)
    forms: list[Any] = field(default_factory=list)

    @property
    def taught_names(self) -> list[str]:
        """Labels that train, in the order of the codes: all but what is out of scope."""
        return self.label_names[: len(self.label_texts) or None]

    @property
    def descriptions(self) -> dict[str, str]:
        """Hash of the labels' texts under "label_descriptions", where a file gives some more than their name."""
        described = any(len(own) > 1 for own in self.label_texts)
        return {"label_descriptions": hash_of(self.label_texts)} if described else {}

    @property
    def files(self) -> list[Examples]:
        """What was read, each once."""
        return list({id(split.examples): split.examples for split in self.splits.values()}.values())


def load_corpus(
    data: DataSettings,
    template: Template,
    tokenizer: Any,
    max_tokens: int,
    seed: int,
    folder: Path,
    known: Sequence[str] = (),
) -> Corpus:
    """Read everything a run needs.

    Args:
        data: the recipe's data settings.
        template: turns a row into the text to read.
        tokenizer: of the model.
        max_tokens: longest row. [tokens]
        seed: of the run.
        folder: the recipe's, for relative paths.
        known: labels that an earlier run knows; they need no example.
    Returns:
        The splits with their facts and warnings.
    Raises:
        DataError: anything wrong with the data, with file and line.
        RecipeError: the template shows the label.
    """
    if data.label in template.fields:
        raise RecipeError(
            f"prompt.template: the field '{data.label}' is the label column: the model would read the answer."
        )
    kept = tuple(name for name in (data.group, data.time, data.soft_labels, data.row_weights) if name is not None)
    files = {"train": read_labelled((data.train, *data.also_train), data, template, folder, kept)}
    if isinstance(data.validation, str):
        files["validation"] = read_labelled(data.validation, data, template, folder)
    if isinstance(data.test, str):
        files["test"] = read_labelled(data.test, data, template, folder)
    if not known:
        audit.check_classes(files["train"])
    names = sorted({*files["train"].label_names, *known})
    if data.out_of_scope is not None:
        names = _with_outside(names, data.out_of_scope, files["train"])
    parts = {name: _part(name, examples, names, data.out_of_scope, tokenizer) for name, examples in files.items()}
    said, leaked = separate(parts, data.leakage)
    warnings = [*of_types(files), *_alike(names), *said, *_hold_out(parts, data, seed)]
    parts["train"], findings = filter_training(parts["train"], data, _texts, names, seed)
    warnings.extend(cleaning_sentences(steps_without_model(data), list(files.values()), findings))
    order: list[str] = [name for name in ("train", "validation", "test") if name in parts]
    splits = {name: _encode(name, parts, names, template, tokenizer, max_tokens) for name in order}
    _read_teaching(splits["train"], data, names)
    for split in splits.values():
        warnings.extend(_remarks(split))
    forms = list[Any]()
    if data.augmentation:
        splits["train"], forms = _augmented(splits["train"], data, template, tokenizer, max_tokens, seed, len(names))
        warnings.extend(one.sentence for one in forms)
    check_coverage(splits, names, files["train"].label_names)
    texts, missing = _label_texts(names, data, folder)
    warnings.extend(missing)
    content = "+".join(files[name].content_hash[:32] for name in files)
    return Corpus(names, splits, warnings, content, texts, findings=[*leaked, *findings], forms=forms)


def _label_texts(names: Sequence[str], data: DataSettings, folder: Path) -> tuple[list[list[str]], list[str]]:
    """Read the texts of labels; say which have their name alone where there are descriptions."""
    described = None if data.label_descriptions is None else resolve_path(data.label_descriptions, folder)
    inside = [name for name in names if data.out_of_scope is None or name != OUTSIDE]
    texts = label_texts(inside, described)
    bare = [name for name, own in zip(inside, texts, strict=True) if len(own) == 1]
    if described is None or not bare:
        return texts, []
    said = f"{len(bare)} of {len(names)} labels have no description in {described}, the first '{bare[0]}': their names"
    return texts, [f"{said} alone are used."]


def load_labelled(
    path: str, data: DataSettings, names: Sequence[str], template: Template, tokenizer: Any, max_tokens: int
) -> Split:
    """Read one file as a split, for scoring.

    Args:
        path: of the file.
        data: the recipe's data settings.
        names: labels, in the order of their codes.
        template: turns a row into the text to read.
        tokenizer: of the model.
        max_tokens: longest row. [tokens]
    Returns:
        The split.
    Raises:
        DataError: the file cannot be used, or holds another label.
    """
    part = _part("test", read_labelled(path, data, template, Path.cwd()), names, data.out_of_scope, tokenizer)
    return _encode("test", {"test": part, "train": part}, list(names), template, tokenizer, max_tokens)


def placed_rows(reads: Any, examples: Examples, index: Iterable[int] | None = None) -> Iterator[dict[str, str]]:
    """Go through rows as they are read: what a cell names is looked up beside the file.

    Args:
        reads: a tokenizer, to which cells are texts, or a `RowMaker`, to which they are names.
        examples: of the file.
        index: which rows; all when None.
    Returns:
        Values by column, the text column under "text" too.
    """
    for row in examples.rows(index):
        if isinstance(reads, RowMaker):
            found = reads.beside(row["text"], examples.path)
            row = {**row, "text": found, examples.columns.text: found}
        yield row


def row_hashes(reads: Any, examples: Examples, index: Iterable[int] | None = None) -> audit.Hashes:
    """Hash what tells rows apart: their texts, or what their cells name.

    Args:
        reads: a tokenizer, or a `RowMaker`.
        examples: of the file.
        index: which rows; all when None.
    Returns:
        (rows,), uint64.
    """
    rows, names = placed_rows(reads, examples, index), isinstance(reads, RowMaker)
    return audit.text_hashes(reads.content(row["text"]) if names else row["text"] for row in rows)


def _with_outside(names: list[str], outside: str, train: Examples) -> list[str]:
    """Put what is out of scope behind the labels; such rows do not train."""
    for name in (outside, OUTSIDE):
        if name in train.label_names:
            row = int(np.flatnonzero(train.labels == train.label_names.index(name))[0])
            raise DataError(
                f"{train.path}, {train.where[row]}: the label '{name}' is for rows out of scope, which do not train. "
                "Put such rows into validation and test, or leave data.out_of_scope and task.reject out to learn it as "
                "a label like others."
            )
    return [*(name for name in names if name != OUTSIDE), OUTSIDE]


def _part(name: str, examples: Examples, names: Sequence[str], outside: str | None, reads: Any) -> Part:
    labels = audit.align_labels(name, examples, list(names), outside)
    dropped = {"empty": len(examples.dropped)} if examples.dropped else {}
    hashes = row_hashes(reads, examples)
    if isinstance(reads, RowMaker):  # names stay where what they name changes
        examples.content_hash = hash_of([examples.content_hash, hashes.tolist()])
    return Part(examples, np.arange(len(examples)), labels, dropped, hashes)


def _texts(part: Part) -> list[str]:
    return [row["text"] for row in part.examples.rows(part.index)]


def _hold_out(parts: dict[str, Part], data: DataSettings, seed: int) -> list[str]:
    """Hold out what is a share of train; say what was kept together."""
    wanted, train = shares(data), parts["train"]
    said = split_by_columns(train, data)
    if (wanted or data.folds) and data.near_copies is not None:
        said.append(keep_near_together(train, [_texts(train)], data.near_copies))
    hold_out(parts, wanted, seed)
    if data.folds is not None:
        hold_out_fold(parts, data, seed)
    return said


def _alike(names: list[str]) -> list[str]:
    """Remark on labels that are one in another spelling: they train as different classes."""
    pairs = [
        (pair, "differ only in letter case, spacing or how characters are encoded") for pair in spelled_alike(names)
    ]
    pairs += [(pair, "write one number in two ways") for pair in same_numbers(names)]
    return [f"the labels '{one}' and '{other}' {how}; are they one?" for (one, other), how in pairs]


def _encode(
    name: str, parts: dict[str, Part], names: list[str], template: Template, tokenizer: Any, max_tokens: int
) -> Split:
    part = parts[name]

    def tokenized(one: Template) -> tuple[TokenRows, Path | None]:
        def texts() -> Iterator[str]:
            return map(one.render, placed_rows(tokenizer, part.examples, part.index))

        return tokenize_once(tokenizer, texts, part.size, max_tokens)

    (tokens, kept_in), *others = map(tokenized, template.wordings)
    tokens = VariedRows([tokens, *(more for more, _ in others)]) if others else tokens
    repeated, conflicts = audit.duplicates(part.hashes, part.labels)
    in_train = 0 if name == "train" else int(np.isin(part.hashes, parts["train"].hashes).sum())
    facts = audit.Audit(
        rows=len(part.index),
        classes=audit.class_counts(part.labels, names),
        dropped=part.dropped,
        duplicates=repeated,
        conflicts=conflicts,
        in_train=in_train,
        tokens=audit.length_facts(tokens.full_lengths),
        truncated=tokens.truncated,
        max_tokens=max_tokens,
        together=part.together(),
    )
    return Split(name, part.examples, part.index, part.labels, tokens, facts, kept_in=kept_in)


def _augmented(
    split: Split, data: DataSettings, template: Template, tokenizer: Any, max_tokens: int, seed: int, classes: int
) -> tuple[Split, list[Any]]:
    """Let training draw other forms of the rows' texts."""

    def write(row: int, changed: Callable[[str], str]) -> str:
        values = next(split.examples.rows([int(split.index[row])]))
        text = changed(values["text"])
        return template.render({**values, "text": text, split.examples.columns.text: text})

    def texts() -> list[str]:
        return [values["text"] for values in split.examples.rows(split.index.tolist())]

    steps = build_augmentations(data.augmentation)
    if isinstance(tokenizer, RowMaker):
        mixes = split.soft is None and any(step.mixes for step in steps)  # a row that is made of several has no label
        soft = np.eye(classes, dtype=np.float32)[split.labels] if mixes else split.soft
        return replace(split, tokens=tokenizer.augmented(split.tokens, steps), soft=soft), []
    ready = [step.prepared(texts, derived(seed, f"augmentation {step.name}")) for step in steps]
    forms = [one for one, step in zip(ready, steps, strict=True) if step.ahead]
    return replace(split, tokens=AugmentedRows(split.tokens, tokenizer, write, ready, max_tokens)), forms


def _read_teaching(split: Split, data: DataSettings, names: Sequence[str]) -> None:
    """Read what rows teach besides their labels: probabilities of all labels, and how much each row counts."""
    if data.soft_labels is not None:
        split.soft = soft_labels(split.examples, data.soft_labels, names)[split.index]
    if data.row_weights is not None:
        split.weights = row_weights(split.examples, data.row_weights, split.index)


def _remarks(split: Split) -> list[str]:
    facts, remarks = split.audit, []
    for reason, count in facts.dropped.items():
        if reason == "empty":
            remarks.append(f"{split.name}: {count} rows with an empty text or label were dropped (data.empty=drop).")
    if facts.truncated:
        remarks.append(
            f"{split.name}: {facts.truncated} of {facts.rows} rows are longer than {facts.max_tokens} tokens and were "
            f"cut; the longest has {facts.tokens['longest']}. Raise data.max_tokens if the model allows it."
        )
    if split.name != "train" and facts.rows < FEW:
        remarks.append(f"{split.name}: only {facts.rows} rows, so its scores and intervals say little.")
    if split.name == "train" and facts.conflicts:
        remarks.append(f"train: {facts.conflicts} rows repeat an earlier text with another label; check those labels.")
    if split.name == "train" and facts.duplicates > facts.conflicts:
        remarks.append(f"train: {facts.duplicates - facts.conflicts} rows repeat an earlier row.")
    return remarks


def check_coverage(splits: Mapping[str, Split], names: Sequence[str], given: Sequence[str]) -> None:
    """Refuse training rows that lack a label of their file.

    Args:
        splits: with "train".
        names: labels, in the order of the codes.
        given: labels of the training file.
    Raises:
        DataError: every row of a label was held out or dropped.
    """
    present = set(np.unique(splits["train"].labels).tolist())
    lost = [name for code, name in enumerate(names) if code not in present and name in given]
    if lost:
        raise DataError(
            f"no training row is left for the label '{lost[0]}' ({len(lost)} of {len(names)} labels) after rows were "
            "held out (data.folds, data.time, data.group) or dropped (data.leakage, data.cleaning). Add examples of "
            "it, or hold out or drop less."
        )
