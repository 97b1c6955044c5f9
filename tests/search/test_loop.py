"""The closed loop from end to end: as alone, resumed as never stopped, decisions by tests, mistakes named."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import tunesmith
from tests.conftest import TEXTS, run_command, save_drawings, save_tiny_bert, save_tiny_writer, write_csv
from tunesmith.core.errors import CheckpointError, RecipeError
from tunesmith.core.registry import components
from tunesmith.runs.opening import read_corpus
from tunesmith.runs.session import open_reading
from tunesmith.search.attempts import Attempt, Record, Test
from tunesmith.search.best_attempts import _ends, _picked, mattered
from tunesmith.search.changes import Change, merged
from tunesmith.search.deciding import adopted
from tunesmith.search.errors_seen import Errors, LengthErrors
from tunesmith.search.finishing import Final, final_of
from tunesmith.search.loop import ClosedLoop
from tunesmith.search.loop_report import errors_of
from tunesmith.search.loop_wanted import LoopSettings, read_loop
from tunesmith.search.trials import Outcome

SETTINGS: dict[str, Any] = {"trials": 6, "width": 3}


@pytest.fixture(scope="module")
def base(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("loop")
    train = [(f"{text} {extra}", label) for label, texts in TEXTS.items() for text in texts for extra in "abcd"]
    write_csv(folder / "train.csv", train)
    write_csv(folder / "test.csv", [(f"well {text}", label) for label, texts in TEXTS.items() for text in texts])
    return {
        "model": str(tiny_folder),
        "data": {"train": str(folder / "train.csv"), "test": str(folder / "test.csv"), "validation": 0.25},
        "method": {"name": "lora", "rank": 4},
        "training": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3},
        "evaluation": {"resamples": 100, "baselines": False},
    }


@pytest.fixture(scope="module")
def found(base: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("found") / "loop"
    return folder, tunesmith.loop({**base, "output": str(folder)}, **SETTINGS)


def kept(folder: Path) -> list[Attempt]:
    lines = (folder / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
    return [Attempt.of(one) for line in lines for one in json.loads(line)["attempts"]]


def told(attempts: list[Attempt]) -> list[Any]:
    """What must not depend on time."""
    return [replace(one, outcome=replace(one.outcome, seconds=0.0)) for one in attempts]


def test_rounds_begin_with_the_recipe_as_written_and_every_later_attempt_is_tested(
    found: tuple[Path, dict[str, Any]],
) -> None:
    folder, result = found
    attempts = kept(folder)
    assert len(attempts) == 6 and result["rounds"] >= 3 and result["attempts"]["all"] == 6
    assert attempts[0].values == {} and attempts[0].test is None
    assert [one.by for one in attempts[1:4]] == ["class-vectors", "deep-class-vectors", "learning-rates"]
    for one in attempts[1:]:
        assert one.test is not None and one.test.low <= one.test.gain <= one.test.high
        assert one.test.p_value <= one.test.corrected <= 1 and one.change.why
    assert {one.by for one in attempts[4:]} <= set(components("adjustments"))


def test_an_attempt_in_a_shared_pass_with_other_heads_is_what_it_would_be_alone(
    found: tuple[Path, dict[str, Any]], base: dict[str, Any]
) -> None:
    from tunesmith.search.changes import words_of

    folder, _ = found
    one = kept(folder)[1]
    assert one.values["task.head_kind"] == "proxies-and-matching"
    run = tunesmith.train(base, [*words_of(one.values), f"output={folder.parent / 'alone'}"])
    assert run.metrics["validation"]["accuracy"] == one.outcome.scores["accuracy"]
    rows = (run.folder / "history.jsonl").read_text().splitlines()
    assert json.loads(rows[one.outcome.best_epoch - 1])["validation loss"] == pytest.approx(one.outcome.loss, rel=1e-4)


def test_the_best_is_carried_out_and_scored_on_test(found: tuple[Path, dict[str, Any]]) -> None:
    folder, result = found
    run = tunesmith.Run(folder / "best")
    assert result["score"] == run.metrics["test"]["accuracy"]
    best = kept(folder)[result["best"]]
    assert result["chosen_by"]["value"] == best.outcome.value
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "taken for" in page or "wrong on validation" in page or (best.errors and not best.errors.wrong)
    assert best.change.why.split(",")[0] in (folder / "loop.md").read_text(encoding="utf-8")


def test_the_best_attempts_are_compared_row_by_row(found: tuple[Path, dict[str, Any]]) -> None:
    folder, result = found
    compared = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    complete = {f"attempt {one.number}": one for one in kept(folder) if one.outcome.state == "complete"}
    names = [one["name"] for one in compared["runs"]]
    assert {"attempt 0", f"attempt {result['best']}"} <= set(names) <= set(complete) and len(names) >= 2
    for one in compared["runs"]:
        assert one["metrics"]["accuracy"]["value"] == pytest.approx(complete[one["name"]].outcome.value)
    values = [complete[name].outcome.value for name in names]
    assert values == sorted(values, reverse=True)
    assert "method.layers" in compared["runs"][0]["settings"]
    texts = {f"{text} {extra}" for texts in TEXTS.values() for text in texts for extra in "abcd"}
    page = (folder / "report.html").read_text(encoding="utf-8")
    for title in ("The best attempts on the same rows", "Score against cost", "Settings that differ", "Confusions"):
        assert title in page
    changed = compared["changes"][0]
    if changed["gained"] or changed["lost"]:
        assert any(text in page for text in texts)


def test_settings_that_mattered_are_told_where_there_are_enough_attempts(found: tuple[Path, dict[str, Any]]) -> None:
    """Nine attempts whose score follows the rank alone; six of a real loop are too few."""
    folder, result = found
    assert result["importance"] == {}
    assert "It takes at least 8 attempts with different scores" in (folder / "report.html").read_text(encoding="utf-8")
    tried = [
        replace(attempt(at, 0.5 + 0.05 * (at % 3), 0.1, 0.5), values={"rank": at % 3, "seed": at // 3}, test=None)
        for at in range(9)
    ]
    load = SimpleNamespace(load=lambda values: SimpleNamespace(resolved=lambda: values))
    shares = mattered(cast(ClosedLoop, SimpleNamespace(attempts=tried, wanted=load)))
    assert shares["rank"] > 0.9 and sum(shares.values()) == pytest.approx(1.0)


def test_the_recipe_as_written_and_the_kept_attempt_are_always_compared() -> None:
    values = [0.1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
    attempts = [
        Attempt(at, "", Change("", {}, ""), {}, Outcome("complete", value=one)) for at, one in enumerate(values)
    ]
    attempts[2] = replace(attempts[2], outcome=Outcome("stopped", value=0.8))
    record = SimpleNamespace(has_answers=lambda number: number != 3)
    loop: Any = SimpleNamespace(attempts=attempts, record=record, wanted=SimpleNamespace(higher_is_better=True))
    assert [one.number for one in _picked(loop, 8)] == [1, 4, 5, 6, 8, 0]
    assert _ends([1, 4, 5, 6, 8, 0], 8) == (4, 5) and _ends([1, 0], 0) == (1, 0)


def test_a_loop_that_was_killed_ends_as_one_that_was_not_and_test_rows_do_not_choose(
    found: tuple[Path, dict[str, Any]], base: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_csv(tmp_path / "other.csv", [(text, "thanks") for texts in TEXTS.values() for text in texts])
    recipe = {**base, "data": {**base["data"], "test": str(tmp_path / "other.csv")}, "output": str(tmp_path / "loop")}
    add = Record.add

    def killed(self: Record, ended: Any) -> None:
        if ended.number == 2:
            with open(self.folder / "rounds.jsonl", "ab") as file:
                file.write(b'{"number": 2, "ended"')
            raise KeyboardInterrupt
        add(self, ended)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Record, "add", killed)
        tunesmith.loop(recipe, **SETTINGS)
    with pytest.raises(CheckpointError, match="exists. Go on with its loop with --resume"):
        tunesmith.loop(recipe, **SETTINGS)
    with pytest.raises(CheckpointError, match="holds another loop: width is 2, there it was 3"):
        tunesmith.loop(recipe, trials=6, width=2, resume=True)
    result = tunesmith.loop(recipe, **SETTINGS, resume=True)
    assert told(kept(tmp_path / "loop")) == told(kept(found[0]))
    assert result["best"] == found[1]["best"] and result["score"] != found[1]["score"]


@pytest.mark.parametrize("changed", ["train", "validation", "model"])
def test_a_loop_of_other_rows_or_another_model_is_refused(
    base: dict[str, Any], tmp_path: Path, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        name: Path(shutil.copy(base["data"]["train"], tmp_path / f"{name}.csv")) for name in ("train", "validation")
    }
    model = Path(shutil.copytree(base["model"], tmp_path / "model"))
    data = {**base["data"], **{name: str(path) for name, path in files.items()}, "leakage": "keep"}
    recipe = {**base, "model": str(model), "data": data, "output": str(tmp_path / "loop")}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ClosedLoop, "_round", interrupted)
        tunesmith.loop(recipe, **SETTINGS)
    rounds = (tmp_path / "loop" / "rounds.jsonl").read_bytes()
    if changed == "model":
        save_tiny_bert(model, 1)
    else:
        files[changed].write_text(files[changed].read_text().replace("hello", "hallo"))
    name = changed if changed == "model" else f"{changed} rows"
    said = (
        f"holds a loop of other data: {name} is 'sha256:.*, there it was 'sha256:.*Put the files back as they were, or"
    )
    with pytest.raises(CheckpointError, match=said):
        tunesmith.loop(recipe, **SETTINGS, resume=True)
    assert (tmp_path / "loop" / "rounds.jsonl").read_bytes() == rounds


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def test_the_last_run_trains_on_all_rows_in_several_seeds(found: tuple[Path, dict[str, Any]]) -> None:
    folder, result = found
    run = tunesmith.Run(folder / "best")
    best = kept(folder)[result["best"]]
    assert best.errors is not None
    rows = sum(len(texts) for texts in TEXTS.values()) * 4
    assert run.summary["data"]["train"]["rows"] == rows > best.errors.rows
    assert result["final"]["said"] == (
        "validation rows train as well, now that they have chosen; the answers of 3 seeds are averaged"
    )
    assert len(run.predict(["hello there", "goodbye"])) == 2


def test_what_the_last_run_cannot_be_is_said(base: dict[str, Any], tmp_path: Path) -> None:
    plain = LoopSettings()
    held = {**base, "data": {**base["data"], "validation": base["data"]["test"]}}
    best = attempt(4, 0.7, 0.2, 0.5)
    wanted = read_loop({**held, "output": str(tmp_path / "a")}, [], plain)
    final = final_of(wanted, plain, best, 2)
    assert final.values["data.also_train"] == [base["data"]["test"]] and final.values["data.validation"] is None
    assert [one["seed"] for one in final.values["candidates"]] == [0, 1]
    waiting = {**held, "training": {**base["training"], "schedule": "plateau"}, "output": str(tmp_path / "b")}
    final = final_of(read_loop(waiting, [], plain), plain, best, 2)
    assert "data.validation" not in final.values and "training.schedule=plateau waits for them" in final.said
    final.keep(tmp_path / "best.json")
    assert Final.kept(tmp_path / "best.json", 4) == final and Final.kept(tmp_path / "best.json", 3) is None
    frozen = replace(best, values={"task.head_kind": "logistic-regression", "method": {"name": "none"}})
    assert "candidates" not in final_of(wanted, plain, frozen, 3).values  # seeds of what trains nothing are all alike
    alone = final_of(wanted, LoopSettings(use_validation=False), best, 1)
    assert alone.values == {} and alone.said == "as it was tried"


def test_a_share_that_is_test_is_not_drawn_anew_from_rows_that_chose(base: dict[str, Any], tmp_path: Path) -> None:
    data = {"train": base["data"]["train"], "validation": base["data"]["test"]}
    for test, settings in (({}, LoopSettings(measure=0.25)), ({"test": 0.25}, LoopSettings())):
        wanted = read_loop({**base, "data": {**data, **test}, "output": str(tmp_path / "a")}, [], settings)
        final = final_of(wanted, settings, attempt(4, 0.7, 0.2, 0.5), 2)
        first, last = (read_corpus(one, open_reading(one)).splits for one in map(wanted.load, ({}, final.values)))
        assert last["test"].index.tolist() == first["test"].index.tolist() and len(last["test"].index) == 12
        assert last["test"].examples.content_hash == first["test"].examples.content_hash
        assert "validation rows do not train: data.test is a share" in final.said and "2 seeds" in final.said
    assert "do not train" not in final_of(wanted, LoopSettings(use_validation=False), attempt(4, 0.7, 0.2, 0.5), 2).said


def test_the_last_run_on_all_rows_has_no_patience_and_is_no_longer_than_what_it_stopped(
    base: dict[str, Any], tmp_path: Path
) -> None:
    patient = {**base, "training": {**base["training"], "epochs": 40, "patience": 2}, "output": str(tmp_path / "a")}
    plain = LoopSettings()
    wanted = read_loop(patient, [], plain)
    for best_epoch, epochs, taken in ((6, 8, 6), (30, 40, None), (10, 40, 10)):  # stopped early; not; not, best early
        errors = Errors(12, 2, 0.8, 0.9, best_epoch, epochs, [0.8] * epochs)
        final = final_of(wanted, plain, replace(attempt(4, 0.7, 0.2, 0.5), errors=errors), 2)
        assert final.values["data.validation"] is None and final.values["training.patience"] is None
        assert final.values.get("training.epochs") == taken and "more is not possible" not in final.said
    plainly = read_loop({**base, "output": str(tmp_path / "b")}, [], plain)
    assert "training.patience" not in final_of(plainly, plain, attempt(4, 0.7, 0.2, 0.5), 2).values


def attempt(number: int, value: float, gain: float, corrected: float) -> Attempt:
    outcome = Outcome("complete", value=value, loss=1.0)
    test = Test(0, gain, gain - 0.1, gain + 0.1, corrected / 2, corrected)
    return Attempt(number, "by", Change("what", {}, "why"), {}, outcome, None, test)


def test_a_change_has_to_show_its_gain_and_a_start_only_to_be_the_best() -> None:
    best, better, shown = attempt(0, 0.5, 0.0, 1.0), attempt(1, 0.7, 0.2, 0.5), attempt(2, 0.6, 0.1, 0.05)
    failed = Attempt(3, "by", Change("what", {}, "why"), {}, Outcome("failed", "no"))
    found = [better, shown, failed]
    assert adopted(found, best, 0.1, False, True) is shown
    assert adopted([better, failed], best, 0.1, False, True) is best
    assert adopted(found, best, 0.1, True, True) is better
    assert adopted([failed], best, 0.1, True, True) is best


def test_a_key_takes_the_place_of_those_below_it() -> None:
    values = {"method.rank": 4, "training.epochs": 2}
    assert merged(values, {"method": {"name": "bitfit"}}) == {"training.epochs": 2, "method": {"name": "bitfit"}}
    assert list(merged({"method": {"name": "lora"}}, {"method.rank": 8})) == ["method", "method.rank"]


@pytest.mark.parametrize(
    ("overrides", "settings", "message"),
    [
        (["data.validation=null"], {"trials": 2}, "data.validation: a loop chooses by validation rows"),
        (["candidates=[{seed: 1}]"], {"trials": 2}, "candidates: a loop makes its own candidates"),
        (["method=auto"], {"trials": 2}, "method: auto: a loop makes its own candidates"),
        ([], {"trials": 2, "metric": "last"}, "search.metric: 'last' says which epoch is kept and is no metric"),
        ([], {"trials": 0}, "allows nothing to be tried"),
        ([], {}, "a search needs an end"),
        ([], {"trials": 2, "widht": 3}, "widht"),
        (["search.strategy.each=3"], {"trials": 2}, "unknown key"),
    ],
)
def test_mistakes_are_named_before_anything_is_loaded(
    base: dict[str, Any], tmp_path: Path, overrides: list[str], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        tunesmith.loop(base, [f"output={tmp_path / 's'}", *overrides], **settings)


def test_a_budget_shorter_than_the_recipe_as_written_says_how_long_that_takes(
    base: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=r"budget: 3 s is shorter than one trial, which takes about \d+ s"):
        tunesmith.loop(base, ["training.epochs=100000", f"output={tmp_path / 's'}"], budget="3s")


def test_without_test_a_share_of_train_is_held_out_and_said(base: dict[str, Any], tmp_path: Path) -> None:
    data = {key: value for key, value in base["data"].items() if key != "test"}
    (tmp_path / "recipe.yaml").write_text(json.dumps({**base, "data": data, "output": str(tmp_path / "loop")}))
    done = run_command("loop", str(tmp_path / "recipe.yaml"), "search.measure=0.25", "--trials", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert "25% of train are held out" in done.stderr
    result = json.loads(done.stdout)
    assert result["best"] == 0 and result["overrides"] == [] and result["score"]["value"] is not None


def test_images_and_writing_go_round_too(tiny_vision: Path, tmp_path: Path) -> None:
    common = {"method": {"name": "lora", "rank": 2}, "evaluation": {"resamples": 100, "baselines": False}}
    drawn = {
        **common, "task": "image-classification", "model": str(tiny_vision),
        "data": {"train": str(save_drawings(tmp_path / "train.zip", classes=3)), "validation": 0.34, "test": 0.2},
        "training": {"epochs": 1}, "output": str(tmp_path / "drawn"),
    }  # fmt: skip
    rows = [{"prompt": f"say {word} {number}", "completion": word} for word in TEXTS for number in range(8)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    written = {
        **common, "task": "instruction-tuning", "model": str(save_tiny_writer(tmp_path / "writer")),
        "data": {"train": str(tmp_path / "rows.jsonl"), "validation": 0.25, "test": 0.25},
        "training": {"epochs": 1}, "output": str(tmp_path / "written"),
    }  # fmt: skip
    for recipe in (drawn, written):
        result = tunesmith.loop(recipe, trials=3, width=2, members=2)
        tried = kept(Path(recipe["output"]))
        assert [one.outcome.state for one in tried] == ["complete"] * 3 and "biases" not in {one.by for one in tried}
        assert result["score"]["value"] is not None
    assert result["final"]["said"].startswith("as it was tried (more is not possible: data.validation: there are no ")
    assert "nothing was loaded" not in result["final"]["said"]


def test_what_is_wrong_is_told_in_the_words_of_the_metric() -> None:
    parts = [LengthErrors(5, 10, 0.1), LengthErrors(9, 10, 0.2)]
    errors = Errors(20, 3, 0.412, 0.205, 2, 4, [], lengths=parts)
    best = replace(attempt(1, 0.4, 0.1, 0.5), errors=errors)
    assert "Attempt 1: log-loss 0.205 on rows that trained, 0.412 on validation; best epoch 2 of 4." in errors_of(
        best, "log-loss"
    )
    whole = errors_of(replace(best, errors=replace(errors, wrong=0, score=1.0, trained_score=1.0)), "accuracy")
    assert "accuracy 100.0 % on rows that trained" in whole and "<th>wrong</th>" in whole and "10.0%" in whole
    written = errors_of(replace(best, errors=replace(errors, wrong=0, labelled=False)), "perplexity")
    assert "<th>mean loss</th>" in written and "0.100" in written


def test_what_fits_the_time_is_looked_for_among_all_proposals() -> None:
    """Of five proposals two fit: the third, which leaves 30 s, and the last; the others take longer than is left."""
    proposals: list[Any] = [SimpleNamespace(checked=seconds) for seconds in (200, 150, 70, 80, 20)]
    loop: Any = SimpleNamespace(
        settings=SimpleNamespace(width=2, members=1),
        budget=SimpleNamespace(evaluations=None, seconds=1000.0, elapsed=850.0),
        record=SimpleNamespace(rounds=[]),
        _last_run=lambda _: 50.0,
        _seconds_of=lambda checked: checked,
    )
    assert [one.checked for one in ClosedLoop._fitting(loop, proposals)] == [70, 20]
    loop.settings.width = 1
    assert [one.checked for one in ClosedLoop._fitting(loop, proposals)] == [70]
