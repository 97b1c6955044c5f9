"""What commands print for people."""

from __future__ import annotations

import inspect
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import DataError, RecipeError, unknown
from tunesmith.core.files import finite
from tunesmith.core.registry import KINDS, setting_fields
from tunesmith.core.registry import components as registered

if TYPE_CHECKING:
    from tunesmith.api import EpisodeRun, Prediction, Run
    from tunesmith.evaluation.statistics import Estimate
    from tunesmith.runs.words import Near
    from tunesmith.search.ranking import Ranking

_DATA = (".zip", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".txt")


def give(value: dict[str, Any], as_json: bool, text: str) -> None:
    """Print a result once, as JSON or for people.

    Args:
        value: for programs.
        as_json: whether a program reads it.
        text: for people.
    """
    print(json.dumps(finite(value), ensure_ascii=False) if as_json else text)


def is_file(text: str) -> bool:
    """Say whether the words given to `predict` name a file rather than being the text.

    Args:
        text: as given.
    Returns:
        True for a path that exists, or that looks like a data file; a folder of images is one.
    Raises:
        DataError: it is another folder.
    """
    short = "\n" not in text and all(len(os.fsencode(part)) < 256 for part in text.split("/")) and len(text) < 4096
    if text.strip() and short and (Path(text).is_dir() or (text.endswith("/") and not set(" :") & set(text))):
        from tunesmith.data.readers.pictures import holds_images

        if holds_images(Path(text)):
            return True
        raise DataError(f"'{text}' is a folder; give a text in quotes or a data file.")
    looks = text.lower().endswith(_DATA) and " " not in text
    return looks or (short and Path(text).is_file())


def table_of(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Draw a table.

    Args:
        heads: of the columns.
        rows: cells.
        left: so many first columns are text and the others numbers. [count]
    Returns:
        Several lines.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, head in enumerate(heads):
        table.add_column(head, justify="left" if place < left else "right", overflow="fold", no_wrap=place >= left)
    for row in rows:
        table.add_row(*row)
    text = io.StringIO()
    width = max(100, min(160, Console().width))
    Console(file=text, width=width, highlight=False, markup=False, emoji=False).print(table)
    return text.getvalue().rstrip("\n")


def _score(name: str, score: dict[str, float]) -> str:
    from tunesmith.evaluation.metrics.base import worded

    return worded(name, score["value"], score["low"], score["high"])


def _bytes(count: float) -> str:
    return f"{count / 1e6:,.0f} MB"


def trained(run: Run) -> str:
    """Draw the table of a run: baselines and the tuned model with intervals and cost.

    Args:
        run: the run.
    Returns:
        Several lines.
    """
    from tunesmith.evaluation.metrics.base import worded_gain

    found = run.summary
    if not found["metrics"]:
        return run.unfinished
    split = list(found["metrics"])[-1]
    main = [name for name in ("accuracy", "macro-f1") if name in found["metrics"][split]]
    main = main or list(found["metrics"][split])[:2]
    rows = []
    for line in found["table"]:
        scores = found["baselines"].get(line["name"], found["metrics"])[split]
        cost = [f"{100 * line['trainable_share']:.2f} %", f"{line['seconds']:.1f}", _bytes(line["peak_bytes"])]
        rows.append([line["name"], *(_score(name, scores[name]) for name in main), *cost])
    table = table_of([split, *main, "trained", "seconds", "peak memory"], rows)
    gains = [worded_gain(**gain) for gain in found["gain"]]
    speed = found["examples_per_second"]
    ends = [
        f"{found['seconds']:.1f} s in all, {speed:.0f} examples/s in training."
        if speed
        else "Not a single step was made.",
        f"report: {run.report()}",
    ]
    return "\n".join(filter(None, [table, *gains, *ends, run.opened_again]))


def episodes(run: EpisodeRun) -> str:
    """Draw the table of a run of meta-training: accuracy before and after, and the gain, by shape of episode.

    Args:
        run: the run.
    Returns:
        Several lines.
    """
    found = run.summary
    columns = [found["before"], found["metrics"], found["gain"]]
    rows = [
        [shape, *(f"{100 * one[shape]['value']:.2f} ({100 * one[shape]['low']:.2f} - {100 * one[shape]['high']:.2f})"
                  for one in columns)]
        for shape in found["metrics"]
    ]  # fmt: skip
    table = table_of(
        [f"accuracy in %, {found['episodes']} episodes", "class means before", found["learner"], "gain"], rows
    )
    end = f"{found['episodes_trained']:,} episodes in {found['training_seconds']:.1f} s of training; run: {run.folder}"
    return f"{table}\n{end}\nreport: {run.report()}"


def next_steps(run: Run) -> str:
    """Say what to try after the demo.

    Args:
        run: of the demo.
    Returns:
        Lines that begin with a line break.
    """
    return f'\nnext: tunesmith predict {run.folder} "the mug came in three pieces, can I get a new one?"'


def scores(found: dict[str, Estimate]) -> str:
    """Draw metrics with intervals.

    Args:
        found: metric to estimate.
    Returns:
        A table.
    """
    rows = [[name, f"{one.value:.4f}", f"{one.low:.4f} - {one.high:.4f}"] for name, one in found.items()]
    return table_of(["metric", "value", "interval"], rows)


def predictions(answers: list[Prediction]) -> str:
    """Draw answers, the three most probable labels of each.

    Args:
        answers: of a run.
    Returns:
        One line per answer; of rows of a file, where each stands in front.
    """
    lines = []
    for answer in answers:
        best = sorted(answer.probabilities.items(), key=lambda item: -item[1])[:3]
        said = "  ".join(f"{_one_line(label)} {100 * probability:.1f} %" for label, probability in best)
        said = said if answer.label is not None else f"no answer ({said})"
        lines.append(f"{answer.where}: {said}" if answer.where else said)
    return "\n".join(lines)


def _one_line(label: str) -> str:
    """Write a label so that its answer stays one line."""
    return label if label.isprintable() else json.dumps(label, ensure_ascii=False)[1:-1]


def mixed(found: dict[str, Any]) -> str:
    """Word the weights and scores of a mix.

    Args:
        found: by `tunesmith.mix`.
    Returns:
        One line per run, then the mix.
    """
    metric = next(iter(found["mix"]))
    lines = [
        f"{weight:.3f} x {run}: {metric} {score[metric]['value']:.4f}"
        for run, weight, score in zip(found["runs"], found["weights"], found["scores"], strict=True)
    ]
    both = found["mix"][metric]
    mixed = f"mix: {metric} {both['value']:.4f} ({both['low']:.4f} - {both['high']:.4f}) on {found['rows']:,} rows"
    return "\n".join([*lines, f"{mixed}; they chose the weights, so score it on other rows"])


def _facts(component: Any) -> str:
    """Word what a method needs and can, from its class."""
    if not hasattr(component, "needs"):
        return ""
    needs = ", ".join(sorted(component.needs)) or "nothing"
    merges = "merges" if component.mergeable else "does not merge"
    peft = f"PEFT's {component.peft_type}" if component.peft_type else "not in PEFT"
    start = "starts neutral" if component.neutral else "changes answers from the start"
    return f"needs {needs}; {merges}; {peft}; {start}"


def component_rows(kind: str) -> list[dict[str, Any]]:
    """Describe the components of a kind.

    Args:
        kind: as typed.
    Returns:
        One row per component.
    Raises:
        RecipeError: no such kind.
    """
    if kind not in KINDS:
        raise RecipeError(unknown("kind", kind, KINDS))
    return [
        {
            "name": name,
            "summary": (inspect.getdoc(component) or "").split("\n")[0],
            "paper": getattr(component, "paper", ""),
            "facts": _facts(component),
            "settings": setting_fields(kind, name),
        }
        for name, component in registered(kind).items()
    ]


def components(rows: list[dict[str, Any]]) -> str:
    """Draw components with their settings.

    Args:
        rows: from `component_rows`.
    Returns:
        A table.
    """
    lines = []
    for row in rows:
        settings = ", ".join(f"{item['name']}={item['default']}" for item in row["settings"])
        lines.append([row["name"], row["summary"], settings])
    return table_of(["name", "what", "settings"], lines, left=3)


def pairs(facts: dict[str, Any]) -> str:
    """Draw names and values.

    Args:
        facts: plain values.
    Returns:
        A table.
    """
    return table_of(["", ""], [[name, str(value)] for name, value in facts.items()], left=2)


def facts(found: dict[str, Any]) -> str:
    """Draw the figures of a result; long numbers are rounded, tables and missing values left to --json.

    Args:
        found: plain values.
    Returns:
        A table.
    """
    plain = {name: value for name, value in found.items() if value is not None and not isinstance(value, dict)}
    return pairs({name: f"{value:.3g}" if isinstance(value, float) else value for name, value in plain.items()})


def numbers(text: str) -> list[float]:
    """Read numbers separated by commas.

    Args:
        text: as typed, for example "0.5,0.5".
    Returns:
        The numbers.
    Raises:
        RecipeError: one of them is no number.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise RecipeError(f"'{text}' is not a list of numbers separated by commas, as 0.5,0.5 is.") from None


def ranking(found: Ranking) -> str:
    """Draw a ranking of prompts.

    Args:
        found: it.
    Returns:
        A table, and what a reader has to know.
    """
    from tunesmith.search.ranking import HEADS, rows_of, sentences

    table = table_of(HEADS[:-1], [row[:-1] for row in rows_of(found)])
    return "\n".join([table, *sentences(found)])


def searched(found: dict[str, Any], folder: Path) -> str:
    """Say what a search found.

    Args:
        found: its result.
        folder: of the study.
    Returns:
        Several lines, the prompt among them.
    """
    from tunesmith.evaluation.metrics.base import is_share

    scale, unit, form = (100, " points", "+.1f") if is_share(found["metric"]) else (1, "", "+.3f")
    value, low, high = (format(scale * found["gain"][key], form) for key in ("value", "low", "high"))
    names = ("start", "found")
    table = table_of(["prompt", found["metric"]], [[name, _score(found["metric"], found[name])] for name in names])
    said = (
        f"gain {value}{unit} ({low} to {high}, p = {found['gain']['p_value']:.3f}) on {found['measured_on']} rows that "
        f"did not choose; {found['candidates']} candidates, {found['evaluations']:.1f} evaluations of "
        f"{found['chosen_on']} rows, {found['seconds']:.0f} s"
    )
    text = (folder / "prompt.yaml").read_text(encoding="utf-8")
    return "\n".join([table, said, "", f"{folder / 'prompt.yaml'}:", text.rstrip()])


def studied(found: dict[str, Any]) -> str:
    """Say what a search of settings found.

    Args:
        found: its result.
    Returns:
        Several lines.
    """
    from tunesmith.search.study_report import sentences

    return "\n".join([*sentences(found), "", f"run: {found['run']}", f"report: {found['report']}"])


def looped(found: dict[str, Any]) -> str:
    """Say what a closed loop found.

    Args:
        found: its result.
    Returns:
        Several lines.
    """
    from tunesmith.search.loop_report import sentences

    return "\n".join([*sentences(found), "", f"run: {found['run']}", f"report: {found['report']}"])


def nearest(found: Sequence[Sequence[Near]]) -> str:
    """Draw virtual tokens as their nearest words.

    Args:
        found: per virtual token, the nearest first.
    Returns:
        A table; after each word its cosine and its Euclidean distance.
    """
    rows = [
        [str(number), *(f"{near.word} {near.angle:.2f} / {near.distance:.2f}" for near in token)]
        for number, token in enumerate(found)
    ]
    return table_of(["token", *["word, angle / distance"] * len(found[0])], rows, left=1 + len(found[0]))


def taught(found: dict[str, Any]) -> str:
    """Draw what pattern-exploiting training gave.

    Args:
        found: its summary.
    Returns:
        A table of the runs' scores, and the gain.
    """
    from tunesmith.evaluation.metrics.base import worded_gain

    main = next(iter(next(iter(found["scores"].values()))))
    rows = [
        [name, f"{found['weights'][name]:.2f}" if name in found["weights"] else "", _score(main, score[main])]
        for name, score in found["scores"].items()
    ]
    gains = [one for one in found["gain"] if one["metric"] == main]
    said = [
        worded_gain(main, *(one[key] for key in ("value", "low", "high", "p_value"))).replace(
            "the best baseline", "labelled rows alone"
        )
        for one in gains
    ]
    return "\n".join([table_of(["run", "weight", f"{main} on {found['split']}"], rows, left=1), *said, found["final"]])


def rates(found: dict[str, Any]) -> str:
    """Word a learning-rate range test.

    Args:
        found: what `lr_range` returned.
    Returns:
        The suggestion with its reason, about ten of the rates, and where the files are.
    """
    said = "no suggestion" if found["suggestion"] is None else f"training.learning_rate={found['suggestion']:.2g}"
    every = max(1, len(found["rates"]) // 10)
    pairs_of = list(zip(found["rates"], found["smoothed"], strict=True))[::every]
    table = table_of(["learning rate", "loss"], [[f"{rate:.2g}", f"{loss:.4f}"] for rate, loss in pairs_of])
    return "\n".join([f"{said}: {found['reason']}", table, *found.get("files", ())])
