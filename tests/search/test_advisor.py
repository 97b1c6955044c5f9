"""The advisor from a file to a recipe and a run: guesses, predictions, bands, ranks, and what is refused."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

import tunesmith
from tests.conftest import TEXTS, run_command, write_csv, write_jsonl
from tunesmith.core.errors import CheckpointError, DataError, RecipeError
from tunesmith.recipe.loading import load_recipe
from tunesmith.search.advising import Advice, Limits, _check_fit, _check_memory, _recipe
from tunesmith.search.expecting import Curve
from tunesmith.search.guessing import look
from tunesmith.search.measuring import Bench
from tunesmith.search.proposals.bitfit import Biases
from tunesmith.search.proposals.lora import Everywhere

OVERRIDES = ["evaluation.resamples=100", "evaluation.baselines=[majority]"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [(f"{text} {extra}", label) for label, texts in TEXTS.items() for text in texts for extra in "abcdefg"]
    return write_csv(tmp_path_factory.mktemp("plans") / "train.csv", rows)


@pytest.fixture(scope="module")
def planned(data: Path, tiny_folder: Path) -> tuple[dict[str, Any], Path]:
    file = data.parent / "recipe.yaml"
    return tunesmith.plan(data, OVERRIDES, model=str(tiny_folder), memory="64GB", output=file), file


def test_plans_are_ranked_and_every_figure_has_its_source(planned: tuple[dict[str, Any], Path]) -> None:
    found, _ = planned
    assert found["data"]["task"] == "text-classification"
    names = {one["name"] for one in found["plans"]}
    assert names == {"zero-shot", "linear-probe", "bitfit", "lora", "lora-top-half", "full"}
    for one in found["plans"]:
        assert one["fits"] and one["seconds"] > 0 and one["memory_bytes"] > 10**7 and one["reason"]
    scores = {one["name"]: one["score"] for one in found["plans"]}
    assert scores["lora"] is scores["full"] is None, "published results are of another model: unknown"
    assert "held-out" in scores["linear-probe"]["evidence"]
    assert 0 <= scores["linear-probe"]["low"] <= scores["linear-probe"]["value"] <= scores["linear-probe"]["high"] <= 1


def test_the_file_is_the_first_plans_recipe_and_trains_as_it_is(planned: tuple[dict[str, Any], Path]) -> None:
    found, file = planned
    written = yaml.safe_load(file.read_text())
    assert written == found["plans"][0]["recipe"] and written["training"]["memory_limit"] == 64 * 10**9 // 2**20
    run = tunesmith.train(file, [f"output={file.parent / 'run'}"])
    assert run.metrics["test"]["accuracy"]["value"] >= 0


def test_a_recipe_that_is_there_is_not_replaced(planned: tuple[dict[str, Any], Path], data: Path) -> None:
    with pytest.raises(CheckpointError, match="is not replaced"):
        tunesmith.plan(data, output=planned[1])


def test_auto_leaves_an_ordinary_run(data: Path, tiny_folder: Path, tmp_path: Path) -> None:
    run = tunesmith.auto(data, OVERRIDES, model=str(tiny_folder), time="10m", output=tmp_path / "run")
    assert run.metrics["test"] and run.predict("hello there friend")[0].label in TEXTS


def test_more_rows_and_epochs_take_longer(data: Path, tiny_folder: Path) -> None:
    recipe = {
        "model": str(tiny_folder),
        "data": {"train": str(data)},
        "evaluation": {"resamples": 100, "baselines": False},
        "training": {"epochs": 1, "batch_size": 8},
    }
    ticks = iter(range(10**9))  # a clock that goes on by one with every look makes times exact
    bench = Bench(load_recipe(recipe), tokens=200, clock=lambda: float(next(ticks)))
    assert bench.times["train"] > 1
    once = bench.cost(load_recipe(recipe))
    often = bench.cost(load_recipe(recipe, ["training.epochs=4"]))
    assert often.parts["training"] == pytest.approx(4 * once.parts["training"])
    assert often.trainable == once.trainable > 0
    small = bench.cost(load_recipe(recipe, ["training.memory_limit=1"]))
    assert not small.fits_memory and "memory_limit" in small.note


@pytest.mark.parametrize(
    ("name", "rows", "task"),
    [
        ("a.jsonl", [{"prompt": f"say {n}", "completion": f"it is {n}"} for n in range(9)], "instruction-tuning"),
        ("b.jsonl", [{"question": f"what {n}", "answer": f"{n}"} for n in range(9)], "question-answering-generative"),
    ],
)
def test_questions_and_answers_are_told_by_their_columns(
    name: str, rows: list[dict[str, str]], task: str, tiny_writer: Path, tmp_path: Path
) -> None:
    assert look(write_jsonl(tmp_path / name, rows), str(tiny_writer), {}).task == task


def test_plans_for_a_model_that_writes(tiny_writer: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"hello {n}", "completion": f"goodbye {n}"} for n in range(40)]
    found = tunesmith.plan(
        write_jsonl(tmp_path / "rows.jsonl", rows),
        ["task.answered_rows=2", "task.samples=0", "task.decoding.max_new_tokens=4", "evaluation.resamples=100"],
        model=str(tiny_writer),
    )
    assert [one["score"] for one in found["plans"]] == [None] * len(found["plans"])
    assert found["chosen"] == "lora" and {one["name"] for one in found["plans"]} >= {"prompt-only", "full"}


def test_a_curve_goes_on_with_its_power_law_and_is_sure_of_no_more() -> None:
    draw, sizes = np.random.default_rng(0), np.array([100.0, 200.0, 400.0])
    wrong = (draw.random((3, 4000)) < (2.0 * sizes**-0.5)[:, None]).astype(float)
    low, value, high = Curve(sizes, wrong, np.arange(4000)).at(1600.0, 0)
    assert low < 1 - 2.0 * 1600**-0.5 < high and low < value < high
    assert Curve(sizes, wrong, np.arange(4000)).at(400.0, 0)[1] == pytest.approx(0.9, abs=0.02)


def test_answers_to_one_row_count_as_one_row() -> None:
    """150 samples of 200 rows, a fifth of them wrong whenever held out: answers as rows of their own cover 90 %."""
    draw, sizes, covered = np.random.default_rng(0), np.array([40.0, 80.0, 150.0]), [0, 0]
    for trial in range(150):
        bad = draw.random(200) < 0.2
        held = np.concatenate([draw.permutation(200)[:50] for _ in range(3)])
        wrong = np.stack([bad[held].astype(float)] * 3)
        for place, rows in enumerate((held, np.arange(150))):
            low, _, high = Curve(sizes, wrong, rows).at(150.0, trial)
            covered[place] += low <= 0.8 <= high
    assert covered[1] / 150 < 0.93 <= covered[0] / 150


@pytest.mark.parametrize(("error", "rows"), [(0.01, 90), (0.02, 90)])
def test_a_band_near_100_percent_covers_what_hardly_errs(error: float, rows: int) -> None:
    """Most samples hold no wrong answer, or one or two; without rows added, bands of 90 rows cover 59 and 84 %."""
    draw, covered, widths = np.random.default_rng(0), 0, []
    for trial in range(200):
        wrong = np.repeat((draw.random(rows) < error)[None].astype(float), 3, 0)
        low, _, high = Curve(np.array([40.0, 80.0, 160.0]), wrong, np.arange(rows)).at(160.0, trial)
        covered += low <= 1 - error <= high
        widths.append(high - low)
    assert covered / 200 >= 0.93
    assert min(widths) > 0 and max(widths) < 0.15


def test_copies_are_held_out_together(data: Path, tiny_folder: Path, tmp_path: Path) -> None:
    """Labels that texts say nothing about, every row written eight times: a copy that trains would give them away."""
    draw = np.random.default_rng(0)
    rows = [
        (f"{a} {b} hello {c}", ("yes", "no")[int(draw.integers(2))]) for a in "abc" for b in "de" for c in "abcd"
    ] * 8
    other = write_csv(tmp_path / "other.csv", [(f"goodbye {n}", ("yes", "no")[n % 2]) for n in range(20)])
    found = tunesmith.plan(
        write_csv(tmp_path / "copies.csv", rows),
        [*OVERRIDES, f"data.validation={other}", f"data.test={other}"],
        model=str(tiny_folder),
    )
    (probe,) = (one["score"] for one in found["plans"] if one["name"] == "linear-probe")
    assert probe["value"] < 0.75


def test_published_results_count_for_their_own_model_and_size_alone(data: Path, tiny_folder: Path) -> None:
    given = look(data, str(tiny_folder), {})
    assert not any(one.fits(given, one.anchor) for one in Everywhere.published)
    assert 0 < Biases().spared(given) < Everywhere().spared(given) < 1


@pytest.mark.parametrize(
    ("rows", "header", "said"),
    [
        ([], ("text", "label"), "holds no examples"),
        ([(f"hello {n}", "yes") for n in range(9)], ("text", "label"), "one label in every row"),
        ([(f"hello {n}", f"there {n}") for n in range(9)], ("text", "more"), "does not say what is to be learned"),
    ],
)
def test_data_that_say_nothing_are_refused(
    rows: list[tuple[str, str]], header: tuple[str, str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said):
        tunesmith.plan(write_csv(tmp_path / "data.csv", rows, header))


def test_one_column_is_refused_with_a_way_out(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text("text\n" + "".join(f"hello {n}\n" for n in range(9)))
    with pytest.raises(DataError, match="in 1 column.*task=text-generation"):
        tunesmith.plan(file)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": "minilmm"}, "neither an embedded model"),
        ({"time": "soon"}, "'soon' is no time"),
        ({"memory": "much"}, "'much' is no memory"),
        ({"memory": "1KB"}, "alone takes"),
        ({"time": 0.001}, "shorter than anything takes"),
        ({"overrides": ["method.rank=4"]}, "the plans choose it"),
        ({"overrides": ["data=other.csv"]}, "data: 'other.csv' is no mapping. Write keys below it"),
        ({"overrides": ["task=[text-classification]"]}, "task: .*'text-classification'.* is no mapping"),
        ({"overrides": ["ensemble=seeds"]}, "ensemble: the plans choose it"),
        ({"overrides": ["data.train=other.csv"]}, "data.train: it is the file or folder that is planned for"),
        ({"overrides": ["task=prompt-classification"]}, "no way to plan for prompt-classification is known"),
    ],
)
def test_wrong_limits_and_settings_are_refused(
    settings: dict[str, Any], said: str, data: Path, tiny_folder: Path
) -> None:
    with pytest.raises(RecipeError, match=said):
        tunesmith.plan(data, **{"model": str(tiny_folder), "overrides": OVERRIDES, **settings})


def test_where_a_run_goes_is_told_once(data: Path, tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="output: name the run's folder with --output"):
        tunesmith.auto(data, ["output=elsewhere"], model=str(tiny_folder), output=tmp_path / "run")


def test_a_task_that_learns_labels_needs_some(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("hello there\nsee you\n" * 5)
    with pytest.raises(DataError, match="the task text-classification learns labels, and no column looks like one"):
        tunesmith.plan(tmp_path / "lines.txt", ["task=text-classification"])


def test_a_quantised_model_is_not_refused_for_what_it_would_take_unquantised(data: Path, tiny_folder: Path) -> None:
    given = replace(look(data, str(tiny_folder), {}), parameters=150)
    _check_memory(given, Limits(None, 100), {"model": {"quantization": "int4"}})
    for settings in ({"quantization": "int8"}, {"dtype": "bfloat16"}, {}):
        with pytest.raises(RecipeError, match="memory: the model .* alone takes"):
            _check_memory(given, Limits(None, 100), {"model": settings})


def test_memory_that_holds_no_plan_is_told_where_it_was_not_limited() -> None:
    plan: Any = SimpleNamespace(misfit="too large", cost=SimpleNamespace(fits_memory=False, memory_bytes=5 * 10**9))
    for allowed, said in ((None, "what is free on this machine holds none"), (10**9, "1,000 MB hold none")):
        with pytest.raises(RecipeError, match=f"memory: {said} of the plans; the smallest takes 5,000 MB"):
            _check_fit([plan], {}, Limits(None, allowed))


def test_a_plans_recipe_means_the_same_wherever_it_stands(
    data: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~$1.csv").write_bytes(data.read_bytes())  # as offices name files that are open
    assert look("~$1.csv", str(tiny_folder), {}).data["train"] == str(tmp_path / "~$1.csv")
    (tmp_path / "test.csv").write_text("text,label\nhello,greeting\n")
    given = look(data, str(tiny_folder), {"data": {"test": "test.csv", "validation": 0.2}})
    given = replace(given, why=["text is 'what\nwas said'"])
    recipe = _recipe(given, {"data": {"test": "test.csv", "validation": 0.2}}, {}, Limits(None, None))
    wanted = {"train": str(data), "test": str(tmp_path / "test.csv"), "validation": 0.2}
    assert {key: recipe["data"][key] for key in wanted} == wanted
    cost = SimpleNamespace(seconds=1.0, memory_bytes=1)
    plan: Any = SimpleNamespace(proposal=SimpleNamespace(name="lora"), cost=cost, band=None, recipe=recipe)
    assert yaml.safe_load(Advice(given, [plan], {}).yaml()) == recipe


def test_limits_are_read_in_their_units() -> None:
    assert Limits.read("30m", "8GB") == Limits(1800.0, 8 * 10**9)
    assert Limits.read(90, "1.5 GiB") == Limits(90.0, 3 * 2**29)
    assert Limits.read(None, None) == Limits(None, None)


def test_the_command_prints_a_table_and_a_mistake_ends_with_2(data: Path, tiny_folder: Path, tmp_path: Path) -> None:
    words = ("plan", str(data), "--model", str(tiny_folder), *OVERRIDES, "--output", str(tmp_path / "recipe.yaml"))
    done = run_command(*words)
    assert done.returncode == 0 and "linear-probe" in done.stdout and "tunesmith train" in done.stdout
    assert run_command("plan", str(tmp_path / "nowhere.csv")).returncode == 2
