"""Ranking and searching prompts from a recipe to files, on a tiny masked model."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import tunesmith
from tunesmith.cli.main import app
from tunesmith.core.errors import CheckpointError, DataError, RecipeError
from tunesmith.prompts.prompt import Prompt
from tunesmith.recipe.loading import load_recipe
from tunesmith.runs.session import open_reading
from tunesmith.search.opening import open_prompts, read_rows
from tunesmith.search.searching import SearchSettings, read_options
from tunesmith.search.study import Study

Recipe = dict[str, Any]
WORDS = {"greeting": "hello", "parting": "goodbye", "thanks": "thanks"}


@pytest.fixture
def asked(recipe: Recipe, masked: Path, data_folder: Path) -> Recipe:
    """The test file is named and not there: whoever reads it fails."""
    words = {"greeting": "you", "parting": "friend", "thanks": "now"}
    return {
        "task": "prompt-classification",
        "model": str(masked),
        "data": {"train": recipe["data"]["train"], "validation": 0.5, "test": str(data_folder / "never.csv")},
        "prompt": {"template": "{text} so {label}", "label_words": words},
        "evaluation": {"resamples": 200},
    }


def plain(folder: Path) -> list[Any]:
    lines = [json.loads(line) for line in (folder / "tried.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("seconds")
    result = json.loads((folder / "result.json").read_text())
    return [lines, (folder / "prompt.yaml").read_text(), {**result, "seconds": 0, "prompt": ""}]


def test_a_search_is_the_same_twice_after_a_kill_and_with_more_budget(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tunesmith.search_prompts(asked, 20, tmp_path / "whole", strategy="beam")
    assert whole["evaluations"] <= 20 and whole["chosen_on"] + whole["measured_on"] == 30
    assert whole["chosen_by"]["value"] >= 0.4  # three labels
    found = Prompt.read(tmp_path / "whole" / "prompt.yaml")
    found.check(["text"])
    assert (tmp_path / "whole" / "report.html").is_file()
    tunesmith.search_prompts(asked, 20, tmp_path / "again", strategy="beam")
    assert plain(tmp_path / "whole") == plain(tmp_path / "again")

    add = Study.add

    def dies(self: Study, tried: Any) -> None:
        if len(self) == 9:
            raise KeyboardInterrupt
        add(self, tried)

    monkeypatch.setattr(Study, "add", dies)
    with pytest.raises(KeyboardInterrupt):
        tunesmith.search_prompts(asked, 20, tmp_path / "killed", strategy="beam")
    monkeypatch.setattr(Study, "add", add)
    tunesmith.search_prompts(asked, 20, tmp_path / "killed", strategy="beam", resume=True)
    assert plain(tmp_path / "whole") == plain(tmp_path / "killed")

    tunesmith.search_prompts(asked, 9, tmp_path / "more", strategy="beam")
    first = (tmp_path / "more" / "tried.jsonl").read_bytes()
    with pytest.raises(RecipeError, match="budget: 3 evaluations are less than the .* has spent. Give at least"):
        tunesmith.search_prompts(asked, 3, tmp_path / "more", strategy="beam", resume=True)
    tunesmith.search_prompts(asked, 20, tmp_path / "more", strategy="beam", resume=True)
    assert (tmp_path / "more" / "tried.jsonl").read_bytes().startswith(first)
    assert plain(tmp_path / "whole") == plain(tmp_path / "more")


def test_settings_of_a_strategy_come_from_all_places_where_they_are_written() -> None:
    def strategy(options: list[str], **values: Any) -> dict[str, Any]:
        return read_options(options, values, SearchSettings)[1].strategy_settings

    assert strategy(["search.strategy_settings={width: 3}"]) == {"width": 3}
    assert strategy(["search.strategy_settings={width: 3}", "search.strategy.proposals=2"]) == {
        "width": 3, "proposals": 2,
    }  # fmt: skip
    assert strategy(["search.strategy.width=2"], strategy_settings={"width": 5, "patience": 1}) == {
        "width": 2, "patience": 1,
    }  # fmt: skip
    with pytest.raises(RecipeError, match="rows"):
        read_options(["search.rows=[4"], {}, SearchSettings)


def test_a_share_that_leaves_no_row_to_measure_is_refused(asked: Recipe, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="validation: none of its 30 rows is left to measure the gain"):
        tunesmith.search_prompts(asked, 5, tmp_path / "out", ["search.measure=0.01"])
    assert not (tmp_path / "out").exists()


def test_a_search_of_other_rows_is_refused(asked: Recipe, tmp_path: Path) -> None:
    train = Path(asked["data"]["train"])
    tunesmith.search_prompts(asked, 2, tmp_path / "out")
    train.write_text(train.read_text().replace("hello", "hallo"))
    with pytest.raises(CheckpointError, match="out holds another search: data is '.*', there it was '"):
        tunesmith.search_prompts(asked, 2, tmp_path / "out", resume=True)


def test_what_a_search_refuses(asked: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for budget in ("0", "0s"):
        with pytest.raises(RecipeError, match="allows nothing to be tried"):
            tunesmith.search_prompts(asked, budget, out)
    with pytest.raises(RecipeError, match="unknown strategy for prompts 'beem'; did you mean 'beam'"):
        tunesmith.search_prompts(asked, 5, out, strategy="beem")
    with pytest.raises(RecipeError, match="did you mean 'phrases'"):
        tunesmith.search_prompts(asked, 5, out, ["search.edits=[phrase]"])
    with pytest.raises(RecipeError, match="did you mean 'rows'"):
        tunesmith.search_prompts(asked, 5, out, ["search.row=3"])
    with pytest.raises(RecipeError, match="width"):
        tunesmith.search_prompts(asked, 5, out, ["search.strategy.width=0"])
    with pytest.raises(RecipeError, match="prompt-classification"):
        tunesmith.search_prompts({**asked, "task": "text-classification", "prompt": {}}, 5, out)
    with pytest.raises(RecipeError, match="perplexity"):
        tunesmith.search_prompts(asked, 5, out, metric="perplexity")
    with pytest.raises(DataError, match="at least 8"):
        tunesmith.search_prompts({**asked, "data": {**asked["data"], "validation": 0.1}}, 5, out)
    with pytest.raises(DataError, match="validation holds 0 rows; at least 8"):
        tunesmith.search_prompts({**asked, "data": {**asked["data"], "validation": None}}, 5, out)
    assert not out.exists()
    (out / "other").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="exists"):
        tunesmith.search_prompts(asked, 5, out)


@pytest.mark.parametrize("strategy", ["greedy", "halving"])
def test_every_strategy_on_the_command_line(
    asked: Recipe, tmp_path: Path, strategy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text(yaml.safe_dump(asked))
    (tmp_path / "glossary.yaml").write_text("parting: [farewell]\ngreeting: Someone says hello.\n")
    words = ["--budget", "6", "--strategy", strategy, "--output", str(out), "--json", "seed=3",
             f"search.glossary={tmp_path / 'glossary.yaml'}"]  # fmt: skip
    app(["prompts", "search", str(recipe), *words], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert found["evaluations"] <= 6 and (out / "prompt.yaml").is_file()
    assert set(found["gain"]) == {"value", "low", "high", "p_value"}
    app(["prompts", "search", str(recipe), *words[:-3], "seed=3", words[-1], "--resume"], standalone_mode=False)
    assert "rows that did not choose" in capsys.readouterr().out


def test_ranking(asked: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, places = tmp_path / "recipe.yaml", []
    recipe.write_text(yaml.safe_dump(asked))
    for name, words in (("wrong", ["you", "friend", "now"]), ("other", ["hello", "see", "so"])):
        places.append(str(tmp_path / f"{name}.yaml"))
        Prompt(template="{text} so {label}", label_words=dict(zip(WORDS, words, strict=True))).write(places[-1])
    app(["prompts", "rank", str(recipe), *places, "--output", str(tmp_path / "out"), "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert {line["name"] for line in found["prompts"]} == {"wrong", "other", "vote", "average", "weighted"}
    assert found["rows"] == 30 and found["split"] == "validation"
    assert json.loads((tmp_path / "out" / "ranking.json").read_text()) == found
    app(["prompts", "rank", str(recipe), places[0], "--metric", "log-loss"], standalone_mode=False)
    assert "wrong" in capsys.readouterr().out


def test_what_a_ranking_refuses(asked: Recipe, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    Prompt(template="{text} {label}", label_words={"greeting": "you", "parting": "now", "thanks": "so"}).write(good)
    with pytest.raises(RecipeError, match="at least one"):
        tunesmith.rank_prompts(asked, [])
    with pytest.raises(RecipeError, match="given twice"):
        tunesmith.rank_prompts(asked, [good, good])
    bad.write_text(f"# with a remark\n{good.read_text()}")
    with pytest.raises(RecipeError, match="good and bad hold the same prompt, which would count twice"):
        tunesmith.rank_prompts(asked, [good, bad])
    bad.write_text("template: no field\n")
    with pytest.raises(RecipeError, match="bad: prompt.template"):
        tunesmith.rank_prompts(asked, [good, bad])
    with pytest.raises(CheckpointError, match="exists"):
        tunesmith.rank_prompts(asked, [good], output=tmp_path)


def test_a_share_held_out_for_test_takes_no_part(asked: Recipe) -> None:
    """Rows that a run of the same recipe scores at its end choose no prompt, propose none and are shown in none."""
    asked["data"] |= {"test": 0.2, "validation": 0.4}
    opened = open_prompts(asked, [])
    checked = load_recipe(asked)
    held = read_rows(checked, open_reading(checked)).splits["test"]
    used = {row["text"] for row in [*opened.train.rows, *opened.validation.rows]}
    assert len(held.index) == 12 and len(used) == 48
    assert not used & {row["text"] for row in held.examples.rows(held.index)}


def test_an_edit_that_costs_too_much_does_not_end_a_search(asked: Recipe, tmp_path: Path) -> None:
    """label-words asks the model about more rows here than the budget allows; other edits ask nothing."""
    words = ["search.edits=[label-words, wordings]", "search.strategy.proposals=3", "search.rows=6"]
    found = tunesmith.search_prompts(asked, 4, tmp_path / "out", words, strategy="greedy")
    assert found["candidates"] == 4 and found["evaluations"] == 4
