"""Names of persons: replaced in what trains and in what a run is asked, and counted by `data inspect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests.conftest import TEXTS, run_command, save_drawings, write_csv, write_jsonl
from tests.models.test_tagging import save_tagger
from tests.runs.test_cleaning import cleaned
from tunesmith.core.errors import CompatibilityError, DataError, RecipeError
from tunesmith.data.cleaned import Cleaned, clean_texts
from tunesmith.data.cleaning.redaction import Redaction
from tunesmith.data.examples import find_reader
from tunesmith.models.tagging import open_tagger
from tunesmith.recipe.loading import load_recipe
from tunesmith.recipe.schema import DataSettings
from tunesmith.training.cleaning import changes_of

Found = dict[str, Any]


@pytest.fixture
def tagger(tmp_path: Path) -> Path:
    open_tagger.cache_clear()
    return save_tagger(tmp_path / "tagger")


def step(tagger: Path, **more: Any) -> Any:
    given = {"name": "redaction", "tagger": str(tagger), **more}
    return changes_of(DataSettings(train="x", cleaning=[given]))[0]


def test_one_name_has_one_placeholder_across_a_row(tagger: Path) -> None:
    cells = ["Ann Lee met Bob", "hello Bob and Ann  Lee, x Ann", "mail ann@example.org or Ann"]
    assert step(tagger).cells(cells) == [
        "<NAME_1> met <NAME_2>", "hello <NAME_2> and <NAME_1>, x <NAME_3>", "mail <MAIL_1> or <NAME_3>"
    ]  # fmt: skip
    assert step(tagger).text("Bob") == "<NAME_1>", "every row counts for itself"
    assert step(tagger, kinds=[]).text("Bob, bob@example.org") == "<NAME_1>, bob@example.org"
    assert Redaction().text("Ann Lee") == "Ann Lee"


def test_what_is_redacted_already_stays(tagger: Path) -> None:
    (tagger / "again").mkdir()
    folder = save_tagger(tagger / "again", ("B-PER", "I-PER", "I-PER"))  # takes everything for a name
    assert step(folder).text("<MAIL_1>") == "<MAIL_1>"
    assert step(folder).text("a@example.org") == "<MAIL_1>", "what is checked goes before what a model thinks"


def test_rows_are_read_together_and_listed(tagger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path / "rows.csv", [("hello Ann" if row % 3 == 0 else "hello x", "Ann") for row in range(1200)])
    change = step(tagger)
    sizes = list[int]()
    find = change._names
    change._names = lambda texts: (sizes.append(len(texts)), find(texts))[1]
    reader = Cleaned(find_reader(str(tmp_path / "rows.csv")), ["text"], [change])
    rows = [values for _, values in reader.rows()]
    assert sizes == [512, 512, 176]
    assert [row["text"] for row in rows[:4]] == ["hello <NAME_1>", "hello x", "hello x", "hello <NAME_1>"]
    assert {row["label"] for row in rows} == {"Ann"}, "labels stay"
    assert list(reader.changed["redaction"])[:2] == ["line 2", "line 5"] and len(reader.changed["redaction"]) == 400


def test_a_run_replaces_names_wherever_it_reads_texts(
    recipe: Found, tagger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(f"{text} {extra} Ann Lee", label) for label, texts in TEXTS.items() for text in texts for extra in "abc"]
    write_csv(tmp_path / "named.csv", rows)
    data = {"train": str(tmp_path / "named.csv"), "test": str(tmp_path / "named.csv")}
    given = cleaned(recipe, {"name": "redaction", "tagger": "tagger"}, **data)
    monkeypatch.chdir(tmp_path)
    run = tunesmith.train(given)
    assert open_tagger.cache_info().currsize == 0, "its memory was free while the run trained"
    assert run.summary["cleaning"]["redaction"]["changed"] == 2 * len(rows)
    assert tunesmith.train(given, resume=True).folder == run.folder, "it is finished, and knows its recipe again"
    monkeypatch.chdir("/")
    again = tunesmith.Run.load(run.folder)
    first, second, other = again.predict_proba(["hello there Ann Lee", "hello there Bob", "hello there x"])
    assert first == pytest.approx(second, abs=1e-6) and abs(first - other).max() > 1e-4
    assert "Ann Lee" not in (run.folder / "report.html").read_text()
    (tagger / "config.json").unlink()
    open_tagger.cache_clear()
    with pytest.raises(tunesmith.TunesmithError, match=r"data\.cleaning: tagger: .* has no config\.json"):
        again.predict("hello")


def test_conversations_are_redacted_as_one_row(tagger: Path, tmp_path: Path) -> None:
    found = clean_texts(["hello Ann", "hello Bob, met Ann"], [step(tagger)])
    assert found == ["hello <NAME_1>", "hello <NAME_2>, met <NAME_1>"]


def test_inspection_counts_names_where_it_is_given_a_tagger(tagger: Path, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", [
        {"text": "hello Ann Lee", "label": "a"}, {"text": "hello x", "label": "b"}, {"text": "and Bob", "label": "a"},
    ])  # fmt: skip
    words = ["data", "inspect", str(file), "--tagger", str(tagger), "--output", str(tmp_path / "page")]
    shown = run_command(*words)
    assert shown.returncode == 0
    assert "2 texts hold names of persons: line 1, line 3 (data.cleaning: redaction with a tagger)." in shown.stdout
    facts = json.loads((tmp_path / "page" / "inspection.json").read_text())["files"][0]
    assert facts["personal"]["name"] == 2 and "Ann" not in (tmp_path / "page" / "inspection.html").read_text()
    plain = tunesmith.inspect_data(file)
    assert "name" not in plain["files"][0]["personal"] and not any("names of" in note for note in plain["notes"])


def test_mistakes(tagger: Path, tiny_folder: Path, tmp_path: Path, recipe: Found) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", [{"text": "hello"}])
    with pytest.raises(CompatibilityError, match="^tagger: .* has no label for persons"):
        tunesmith.inspect_data(file, tagger=str(tiny_folder))
    shown = run_command("data", "inspect", str(file), "--tagger", "taggr/x")
    assert shown.returncode == 2 and "tagger: there is no folder taggr/x" in shown.stderr
    with pytest.raises(DataError, match=r"d\.zip: tagger: its rows are files, not texts"):
        tunesmith.inspect_data(save_drawings(tmp_path / "d.zip"), tagger=str(tagger))
    with pytest.raises(RecipeError, match="kinds: nothing would be replaced"):
        load_recipe(cleaned(recipe, {"name": "redaction", "kinds": []}))
