"""Inspect data files: what they are and what is odd about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.errors import DataError
from tunesmith.core.files import write_json, write_text
from tunesmith.core.progress import Bar, Progress
from tunesmith.data.cleaning.base import Rows
from tunesmith.data.cleaning.label_errors import LabelErrors
from tunesmith.data.descriptions import same_numbers
from tunesmith.data.examples import Columns, find_reader, path_text, read_examples
from tunesmith.data.inspection import Inspection, shared_rows
from tunesmith.data.personal import FindNames
from tunesmith.data.tokens import tokenize
from tunesmith.evaluation.data_page import finding, near_words, render_inspection
from tunesmith.models.loading import load_tokenizer, locate
from tunesmith.models.tagging import open_tagger
from tunesmith.recipe.loading import load_recipe
from tunesmith.runs.folder import check_new, staged
from tunesmith.runs.session import open_session
from tunesmith.tasks.running import extract_features

_TOKENISED = 20_000  # rows whose tokens are counted, spread evenly
_FEW = 5  # rows of a label that are few
_UNEVEN = 10  # times as many rows as the rarest label has


@dataclass(frozen=True)
class Look:
    """How files are looked through.

    Args:
        text: text column; guessed when None.
        label: label column; guessed when None.
        model: whose tokens are counted, and whose features judge labels; minilm for the latter when None.
        suspicious: look for labels that are probably wrong.
        tagger: token-classification model that finds names of persons; they are not looked for when None.
        encoding: of text files.
    """

    text: str | None = None
    label: str | None = None
    model: str | None = None
    suspicious: bool = False
    tagger: str | None = None
    encoding: str = "utf-8"


def inspect_files(
    files: Sequence[str | Path], look: Look | None = None, output: str | Path | None = None
) -> dict[str, Any]:
    """Look through data files row by row.

    Args:
        files: one, or the splits of one data set.
        look: how.
        output: new folder for page and facts; none is written when None.
    Returns:
        "files" with the facts of each, "shared" rows of several, "notes", and "page", where it is.
    Raises:
        DataError: a file that cannot be read, with its line; or no label to judge.
        CheckpointError: the output exists or cannot be written.
    """
    look = look or Look()
    given = [files] if isinstance(files, str | Path) else list(files)
    place = None if output is None else Path(output).expanduser().absolute()
    if place is not None:
        check_new(place)
    if not given:
        raise DataError("no file was given to inspect.")
    looked = _looked(given, look)
    facts = [one.plain() for one in looked]
    shared = shared_rows(looked)
    for one in facts:
        if look.model is not None and one["text"] is not None:
            one["tokens"] = _tokens(one, look.model, look.encoding)
        if look.suspicious:
            one["suspicious"] = _suspicious(one, look.model or "minilm", look.encoding)
    found = {"files": facts, "shared": shared, "notes": [*(note for one in facts for note in _notes(one)),
                                                         *_across(shared)]}  # fmt: skip
    if place is not None:
        with staged(place) as folder:
            write_json(folder / "inspection.json", found)
            write_text(folder / "inspection.html", render_inspection(found))
        found["page"] = str(place / "inspection.html")
    return found


def _looked(files: Sequence[str | Path], look: Look) -> list[Inspection]:
    """Look through files; images and sounds that cannot be read are left aside."""
    found = []
    for path in files:
        reader = find_reader(path_text(path), look.encoding)
        reader.unreadable = []
        with Progress(None if look.tagger else False).stage(f"names in {reader.path}", None, "rows") as bar:
            names = None if look.tagger is None else _names(look.tagger, bar)
            found.append(Inspection(reader, look.text, look.label, names=names))
    return found


def _names(tagger: str, bar: Bar) -> FindNames:
    """Return what finds names and says how far it is."""
    found = open_tagger(tagger)

    def find(texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        names = found.find(texts)
        bar(len(texts))
        return names

    return find


def _tokens(one: dict[str, Any], model: str, encoding: str) -> dict[str, float]:
    """Count the tokens of rows spread evenly over a file."""
    step = max(1, -(-one["rows"] // _TOKENISED))
    rows = islice(find_reader(one["file"], encoding).rows(), 0, None, step)
    texts = [str(values.get(one["text"])) for _, values in rows if values.get(one["text"])]
    lengths = tokenize(load_tokenizer(locate(model)), texts, 10**9).full_lengths
    points = np.percentile(lengths, [0, 50, 95, 100]).tolist()
    return {**dict(zip(("least", "median", "p95", "most"), points, strict=True)), "rows": len(texts)}


def _suspicious(one: dict[str, Any], model: str, encoding: str) -> list[dict[str, Any]]:
    """Judge labels by a probe on a model's features."""
    if one["label"] is None or len(one["labels"]) < 2:
        raise DataError(
            f"{one['file']}: there is no label column with two labels or more, so no label can be judged. Name it "
            "with label."
        )
    session = open_session(load_recipe({"model": model, "data": {"train": one["file"]}}))
    columns = Columns(one["text"], one["label"])
    examples = read_examples(find_reader(one["file"], encoding), columns, drop_empty=True)
    tokens = tokenize(session.tokenizer, (row["text"] for row in examples.rows()), session.max_tokens)
    features = extract_features(session.backbone, session.task, tokens).numpy()
    labels = examples.labels.astype(np.int64)
    verdicts = LabelErrors(do="list").judge(Rows([], labels, examples.label_names, 0, lambda: features))
    return [{"where": examples.where[row], "why": verdict.why} for row, verdict in sorted(verdicts.items())]


def _notes(one: dict[str, Any]) -> list[str]:
    """Say what is odd about a file, one sentence each."""
    name, rows = one["file"], one["rows"]
    texts = one["text"] is not None or one["files"] or one["what"].startswith("conversations")
    found = _of_unreadable(one["unreadable"], rows) + ([] if texts else ["no column holds texts."])
    found += _of_rows(one)
    for column in one["columns"]:
        found += _of_name(column, one["reader"])
        if column["missing"]:
            found.append(f"column '{column['name']}': {column['missing']:,} of {rows:,} cells are empty or null.")
        if column["constant"]:
            found.append(f"column '{column['name']}' holds the same value in every row.")
        found += _of_kinds(column)
    found += _of_labels(one["labels"])
    if one["duplicates"]:
        what = "file" if one["files"] else "text"
        found.append(f"{one['duplicates']:,} rows repeat an earlier {what}, {one['conflicts']:,} of them with another "
                     "label (data.cleaning: duplicates).")  # fmt: skip
    if one["near_duplicates"] and one["near_duplicates"]["rows"]:
        found.append(f"near copies: {near_words(one)} (data.cleaning: near-duplicates, or data.near_copies).")
    for what, some in one["found"].items():
        found.append(f"{some['rows']:,} texts hold {finding(what)}: {', '.join(some['first'])}{_way_out(what)}.")
    for outlier in one["outliers"]:
        first = outlier["first"][0]
        found.append(f"{outlier['rows']:,} texts are far longer or shorter than the others, most of all "
                     f"{first['where']} ({first['characters']:,} characters).")  # fmt: skip
    if one.get("suspicious"):
        first = one["suspicious"][0]
        found.append(f"{len(one['suspicious']):,} labels are suspicious, the first in {first['where']}: {first['why']} "
                     "(data.cleaning: label-errors).")  # fmt: skip
    return [f"{name}: {sentence}" for sentence in found]


def _of_unreadable(files: Sequence[dict[str, str]], rows: int) -> list[str]:
    """Say first of all that files cannot be read: nothing else that is said is of them."""
    if not files:
        return []
    first = files[0]
    return [f"{len(files):,} of {rows + len(files):,} files cannot be read, and everything else is said of the others; "
            f"the first is {first['file']}: {first['why']}"]  # fmt: skip


def _of_rows(one: dict[str, Any]) -> list[str]:
    """Say which files are left out, and which rows are no conversations."""
    found, skipped, unfit = [], one["skipped"], one["unfit"]
    if skipped:
        found.append(f"{len(skipped):,} files of other kinds are left out, for example {skipped[0]}.")
    if unfit["rows"]:
        first = unfit["first"][0]
        found.append(f"{unfit['rows']:,} rows are no conversations that could be learned; the first is "
                     f"{first['where']}: {first['why']}")  # fmt: skip
    return found


def _of_name(column: dict[str, Any], reader: str) -> list[str]:
    """Say that a column has no name, or that the file may have no header."""
    if reader != "delimited":
        return []
    if not column["name"].strip():
        return ["a column has no name; most often it is an index that was saved too."]
    if column["own_name"] is None:
        return []
    return [f"column '{column['name']}' holds its own name in {column['own_name']}: perhaps the file has no header, "
            "and its first row was taken for one (data.columns names columns)."]  # fmt: skip


def _of_kinds(column: dict[str, Any]) -> list[str]:
    """Say that cells are of several types, or texts that read as several kinds."""
    if column["said"] or not column["mixed"]:
        return [column["said"]] if column["said"] else []
    kinds = ", ".join(f"{kind} (first in {where})" for kind, where in column["first"].items())
    return [f"column '{column['name']}' holds cells of several kinds: {kinds}."]


def _of_labels(labels: dict[str, int]) -> list[str]:
    if not labels:
        return []
    counts = list(labels.values())
    few = [label for label, count in labels.items() if count < _FEW]
    found = []
    if max(counts) >= _UNEVEN * min(counts):
        found.append(f"the largest label has {max(counts):,} rows, the smallest {min(counts):,}.")
    if few:
        found.append(f"{len(few)} labels have fewer than {_FEW} rows, for example '{few[0]}'.")
    seen: dict[str, str] = {}
    for label in labels:
        other = seen.setdefault(" ".join(label.casefold().split()), label)
        if other != label:
            found.append(f"the labels '{other}' and '{label}' differ in letter case or spacing only.")
    return found + [f"the labels '{one}' and '{other}' write one number in two ways." for one, other
                    in same_numbers(list(labels))]  # fmt: skip


def _way_out(what: str) -> str:
    steps = {"html": "html", "control characters": "control-characters", "mojibake": "", "replaced": ""}
    step = steps.get(what, "redaction")
    step = "redaction with a tagger" if what == "name" else step
    return f" (data.cleaning: {step})" if step else " (read the source again with its own encoding, data.encoding)"


def _across(shared: Sequence[dict[str, Any]]) -> list[str]:
    return [
        f"{one['rows'][0]:,} rows of {one['files'][0]} also stand in {one['files'][1]} ({one['rows'][1]:,} rows "
        f"there): {', '.join(one['first'])} (data.leakage=drop)."
        for one in shared
    ]
