"""Pattern-exploiting training: several prompts are tuned, label what has no labels, and one run learns from that."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tunesmith.core.arrays import Array
from tunesmith.core.errors import RecipeError, TunesmithError
from tunesmith.core.files import hash_of, write_json, write_text
from tunesmith.core.progress import Progress
from tunesmith.core.settings import Settings, setting
from tunesmith.data.cleaned import read_cleaned
from tunesmith.data.examples import Columns, Examples, find_reader
from tunesmith.data.splitting import Index
from tunesmith.evaluation.statistics import Difference, metrics_by_name, paired_difference
from tunesmith.prompts.prompt import Prompt
from tunesmith.recipe.loading import Checked, load_recipe
from tunesmith.recipe.schemes import trains_nothing
from tunesmith.runs.folder import check_new
from tunesmith.runs.opening import metric_names, read_corpus
from tunesmith.runs.run import Run
from tunesmith.runs.session import Reading, open_reading
from tunesmith.runs.training import train_recipe
from tunesmith.search.comparing import read_prompts
from tunesmith.search.journal import Journal
from tunesmith.search.opening import Table, read_rows
from tunesmith.search.shares_kept import facts_of
from tunesmith.training.cleaning import changes_of
from tunesmith.training.corpus import Corpus
from tunesmith.training.reading import resolve_path
from tunesmith.training.unlabelled import new_rows, worded

_SOFT, _ASKED, _SUMMARY = "soft", "asked.json", "summary.json"


class PatternSettings(Settings):
    """How patterns teach the final run."""

    temperature: float = setting(2.0, "Divides the patterns' log probabilities: above 1 softens what is taught.", gt=0)
    weights: Literal["validation", "even"] = setting(
        "validation", "How patterns count: by their accuracy on validation, or even."
    )
    compare: bool = setting(True, "Train the recipe without the unlabelled rows too, to measure what they gain.")


@dataclass(frozen=True)
class Taught:
    """What came out.

    Args:
        final: the run that learned from the patterns.
        patterns: runs by prompt.
        weights: of the patterns.
        plain: the recipe on the labelled rows alone; None where it was not asked for.
        gains: of the final run over the plain one, by metric, on test, else on validation.
        split: that the gains are measured on.
    """

    final: Run
    patterns: dict[str, Run]
    weights: dict[str, float]
    plain: Run | None
    gains: list[Difference]
    split: str

    def summary(self) -> dict[str, Any]:
        """Return it as plain values."""
        every = {**self.patterns, "final": self.final, **({"plain": self.plain} if self.plain else {})}
        return {
            "final": str(self.final.folder),
            "weights": self.weights,
            "split": self.split,
            "scores": {name: run.metrics[self.split] for name, run in every.items()},
            "gain": [{"metric": one.metric, **one.estimate.plain(), "p_value": one.p_value} for one in self.gains],
        }


def exploit_patterns(  # noqa: PLR0913 - a parameter per option
    recipe: str | Path | Mapping[str, Any],
    prompts: Sequence[str | Path],
    unlabelled: str | Path,
    output: Path,
    overrides: Sequence[str] = (),
    settings: PatternSettings | None = None,
    progress: Progress | None = None,
    resume: bool = False,
) -> Taught:
    """Tune each pattern, let them label rows softly, and train the recipe on labelled and softly labelled rows.

    q(c | x) ~ exp(sum_i w_i log p_i(c | x) / T)

    Args:
        recipe: of the final run, a task with labels; the patterns are tuned by its method and training settings.
        prompts: prompt files, one per pattern.
        unlabelled: data file with the recipe's text column; labels in it are not read.
        output: new folder: patterns/NAME, plain, final, and the rows that were taught.
        overrides: `key=value` texts that win over the recipe.
        settings: of the teaching.
        progress: for the user.
        resume: go on with one that was stopped; runs that are finished are taken as they are.
    Returns:
        The runs and the gain.
    Raises:
        TunesmithError: anything wrong with recipe, data, model or prompts.
    Source: Schick and Schuetze 2020, arXiv:2001.07676. Differs: labelled rows are learned too; any method tunes.
    """
    settings, progress = settings or PatternSettings(), progress or Progress()
    named = read_prompts(prompts)
    checked = load_recipe(recipe, [*overrides, f"output={output / 'final'}"])
    if checked.task.family == "generating":
        raise RecipeError(f"task: {checked.task.name} writes and has no labels. Choose a task with labels.")
    if nothing := trains_nothing(checked.recipe, checked.method):
        raise RecipeError(f"method: {nothing}, so labelled rows would teach nothing. Name a method that trains.")
    _check_taught(checked)
    if not resume:
        check_new(output)
    values, session = placed(checked), open_reading(checked)
    corpus = read_rows(checked, session)
    _check_weighed(settings, corpus)
    held = {name: str(output / f"{name}.jsonl") for name in corpus.splits if name != "train"}
    last = _last(values, output / "taught.jsonl", held)
    load_recipe(last)  # refused before a pattern is tuned
    unread, kept, said = _unlabelled(named, checked, str(unlabelled), session, corpus)
    texts = _texts(unread, kept, checked.recipe.data.text)
    _check_patterns(values, named)
    facts = {**facts_of(checked, settings), **_read(named, corpus, texts)}
    Journal(output, "pattern-exploiting training", _ASKED, _SUMMARY).open(facts, resume)
    for sentence in said:
        progress.say(sentence)
    patterns = {
        name: _trained(_pattern(values, prompt, output / "patterns" / name), progress) for name, prompt in named.items()
    }
    weights = _weights(patterns, settings.weights)
    chances = [run.chances(unread, kept) for run in patterns.values()]
    soft = taught(chances, list(weights.values()), settings.temperature)
    progress.say(f"{len(texts):,} unlabelled rows were labelled by {len(patterns)} patterns")
    _write_taught(output, corpus, texts, soft, checked)
    final = _trained(last, progress)
    plain = _trained({**values, "output": str(output / "plain")}, progress) if settings.compare else None
    split = "test" if "test" in corpus.splits else "validation"
    found = Taught(final, patterns, weights, plain, _gains(final, plain, checked, held[split]), split)
    write_json(output / _SUMMARY, found.summary())
    return found


def _write_taught(
    output: Path, corpus: Corpus, texts: Sequence[Mapping[str, str]], soft: Array, checked: Checked
) -> None:
    """Write what is learned from, and the rows that are held out, for the last run."""
    names, label = corpus.label_names, checked.recipe.data.label
    told = ({**row, label: names[int(q.argmax())], _SOFT: _json(q, names)} for row, q in zip(texts, soft, strict=True))
    _write_rows(output / "taught.jsonl", [*_rows(Table.of(corpus.splits["train"]), names, checked), *told])
    for name in corpus.splits.keys() - {"train"}:
        _write_rows(output / f"{name}.jsonl", _rows(Table.of(corpus.splits[name]), names, checked))


def taught(chances: Sequence[Array], weights: Sequence[float], temperature: float) -> Array:
    """Combine what patterns say about rows.

    Args:
        chances: per pattern, (rows, C), probabilities.
        weights: of the patterns; they count by their shares.
        temperature: T.
    Returns:
        (rows, C), ~ exp(sum_i w_i log p_i / T).
    """
    shares = np.asarray(weights, dtype=np.float64) / sum(weights)
    logs = np.tensordot(shares, np.log(np.clip(np.stack(chances), 1e-12, 1.0)), axes=1) / temperature
    table: Array = np.exp(logs - logs.max(1, keepdims=True))
    return table / table.sum(1, keepdims=True)


def placed(checked: Checked) -> dict[str, Any]:
    """Return a recipe's values with every path absolute.

    Args:
        checked: the recipe.
    Returns:
        Plain values that mean the same anywhere.
    """
    values = checked.resolved()
    data = values["data"]
    for split in ("train", "validation", "test", "unlabelled", "unseen", "label_descriptions"):
        if isinstance(data[split], str):
            data[split] = _found(data[split], checked.folder)
    data["also_train"] = [_found(path, checked.folder) for path in data["also_train"]]
    beside = checked.folder / values["model"]["name"]
    if (beside / "config.json").is_file():
        values["model"]["name"] = str(beside)
    return values


def _found(path: str, folder: Path) -> str:
    found = Path(resolve_path(path, folder))
    return str(found.absolute()) if found.exists() else path


def _last(values: Mapping[str, Any], taught: Path, held: Mapping[str, str]) -> dict[str, Any]:
    """Return the recipe of the final run: everything is held out already, and further files stand in the taught one."""
    split_by = dict.fromkeys(("near_copies", "group", "time", "folds"))
    plain: dict[str, Any] = {"fold": 0, "fold_repeats": 1, "columns": [], "also_train": []}
    data: dict[str, Any] = {**values["data"], **held, **split_by, **plain, "train": str(taught), "soft_labels": _SOFT}
    return {**values, "data": data}


def _check_taught(checked: Checked) -> None:
    """Refuse columns of labelled rows alone: rows that patterns label have none."""
    for key in ("soft_labels", "row_weights"):
        if getattr(checked.recipe.data, key) is not None:
            raise RecipeError(
                f"data.{key}: it is a column of labelled rows alone, and the final run learns from rows without labels "
                "beside them. Leave it out."
            )


def _check_weighed(settings: PatternSettings, corpus: Corpus) -> None:
    if settings.weights == "validation" and "validation" not in corpus.splits:
        raise RecipeError(
            "data.validation: there are no validation rows, and patterns are weighed by their accuracy there. Give a "
            "file or a share, or weigh them alike (--weights even)."
        )


def _check_patterns(values: Mapping[str, Any], named: Mapping[str, Prompt]) -> None:
    """Fill every prompt in before the first one is tuned, which may take hours."""
    for name, prompt in named.items():
        drawn = prompt.changed(demonstrations={"strategy": "random"})  # others need the model's weights to choose
        checked = load_recipe(_pattern(values, drawn, Path(name)))
        try:
            read_corpus(checked, open_reading(checked))
        except TunesmithError as error:
            raise type(error)(f"{name}: {error}") from None


def _pattern(values: Mapping[str, Any], prompt: Prompt, output: Path) -> dict[str, Any]:
    """Return the recipe that tunes a prompt."""
    return {
        **values,
        "task": "prompt-classification",
        "training": {**values["training"], "head_learning_rate": None},  # of what learns from the patterns' answers
        "prompt": prompt.model_dump(mode="json", exclude_defaults=True),
        "evaluation": {**values["evaluation"], "baselines": False, "metrics": None},
        "output": str(output),
    }


def _trained(values: Mapping[str, Any], progress: Progress) -> Run:
    """Carry a recipe out, or go on with what is left of it."""
    return Run(train_recipe(values, progress=progress, resume=Path(values["output"]).exists()))


def _read(named: Mapping[str, Prompt], corpus: Corpus, texts: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Return what was read, as it has to be the same when the training goes on."""
    prompts = {name: prompt.model_dump(mode="json", exclude_defaults=True) for name, prompt in named.items()}
    rows = {"rows": corpus.content_hash, "unlabelled rows": hash_of(list(texts)), **corpus.descriptions}
    return {"prompts": prompts, **rows}


def _weights(patterns: Mapping[str, Run], how: str) -> dict[str, float]:
    if how == "even":
        return dict.fromkeys(patterns, 1 / len(patterns))
    scores = {name: run.metrics["validation"]["accuracy"]["value"] for name, run in patterns.items()}
    total = sum(scores.values())
    return {name: score / total if total else 1 / len(scores) for name, score in scores.items()}


def _unlabelled(
    named: Mapping[str, Prompt], checked: Checked, path: str, session: Reading, corpus: Corpus
) -> tuple[Examples, Index, list[str]]:
    """Read the rows that the patterns will label, before any of them is tuned; rows that are known are left out."""
    data = checked.recipe.data
    fields = {name for prompt in named.values() for name in prompt.fields}
    others = tuple(sorted(fields - {"text", data.text}))
    reader = find_reader(path, data.encoding, data.max_characters, data.columns)
    columns = Columns(reader.only_column or data.text, None, others)
    examples = read_cleaned(reader, columns, data.empty == "drop", changes_of(data))
    kept, dropped = new_rows(examples, session.tokenizer, corpus, data.leakage, "unlabelled")
    said = [f"unlabelled: of {len(examples)} rows {worded(dropped)} and were left out."] if dropped else []
    return examples, kept, said


def _texts(examples: Examples, kept: Index, text: str) -> list[dict[str, str]]:
    """Return rows as they are written to the file that is learned from, their text in the recipe's column."""
    others = examples.columns.others
    return [{text: row["text"], **{name: row[name] for name in others}} for row in examples.rows(kept)]


def _rows(table: Table, names: Sequence[str], checked: Checked) -> list[dict[str, str]]:
    """Write labelled rows as they are read again, soft labels certain."""
    data, found = checked.recipe.data, list[dict[str, str]]()
    for row, code in zip(table.rows, table.truth, strict=True):
        sure = np.eye(len(names))[code]
        found.append({**{name: value for name, value in row.items() if name != "text" or data.text == "text"},
                      data.label: names[code], _SOFT: _json(sure, names)})  # fmt: skip
    return found


def _json(chances: Array, names: Sequence[str]) -> str:
    return json.dumps({name: float(p) for name, p in zip(names, chances, strict=True)}, ensure_ascii=False)


def _write_rows(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _gains(final: Run, plain: Run | None, checked: Checked, path: str) -> list[Difference]:
    if plain is None:
        return []
    first, second = final.labelled(path), plain.labelled(path)
    metrics = metrics_by_name(metric_names(checked))
    return [paired_difference(first, second, metric, final.bootstrap) for metric in metrics]
