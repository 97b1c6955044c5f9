"""A learning curve from end to end: nested shares, the last one as the recipe alone, nothing of test read."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests.conftest import TEXTS, run_command, write_csv, write_jsonl
from tunesmith.core.errors import CheckpointError, DataError, RecipeError, TunesmithError
from tunesmith.search.passes import Passes

SETTINGS: dict[str, Any] = {"points": 4, "repeats": 2, "width": 5}


@pytest.fixture(scope="module")
def base(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("curve")
    train = [(f"{text} {extra}", label) for label, texts in TEXTS.items() for text in texts for extra in "abcd"]
    write_csv(folder / "train.csv", train)
    return {
        "model": str(tiny_folder),
        "data": {"train": str(folder / "train.csv"), "validation": 0.25},
        "method": "lora",
        "training": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-2},
        "evaluation": {"resamples": 100, "baselines": False},
    }


@pytest.fixture(scope="module")
def curve(base: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("curves") / "curve"
    with pytest.MonkeyPatch.context() as patch:
        carry_out, shares = Passes.carry_out, dict[int, Any]()

        def kept(self: Passes, *given: Any) -> Any:
            shares.update(self.rows or {})
            return carry_out(self, *given)

        patch.setattr(Passes, "carry_out", kept)
        found = tunesmith.learning_curve(base, output=folder, **SETTINGS)
    return folder, {**found, "shares": list(shares.values())}


def test_shares_are_nested_and_the_last_is_the_recipe_alone(
    curve: tuple[Path, dict[str, Any]], base: dict[str, Any], tmp_path: Path
) -> None:
    found = curve[1]
    sizes, shares = [one["rows"] for one in found["points"]], found["shares"]
    assert sizes == sorted(set(sizes)) and sizes[0] == 6 and sizes[-1] == 36 == found["rows"]
    assert [len(one) for one in shares] == [size for size in reversed(sizes) for _ in range(2)]
    assert all(set(small) <= set(large) for large, small in zip(shares, shares[2:], strict=False))
    assert set(shares[-1]) != set(shares[-2])
    run = tunesmith.train(base, [f"output={tmp_path / 'run'}"])
    assert found["points"][-1]["scores"][0] == run.metrics["validation"]["accuracy"]["value"]
    assert found["ahead"]["rows"] == 72 and found["gain"]["low"] <= found["gain"]["high"]


def test_the_folder_says_all_of_it(curve: tuple[Path, dict[str, Any]]) -> None:
    folder, found = curve
    written = json.loads((folder / "learning-curve.json").read_text())
    assert written["points"] == found["points"] and written["law"] == found["law"]
    for name in ("learning-curve.md", "report.html"):
        assert "wice the data (72 rows) would give" in (folder / name).read_text()
    assert found["report"] == str(folder / "report.html")


def test_test_rows_are_not_read_and_losses_fall(base: dict[str, Any], tmp_path: Path, pictures: None) -> None:
    scores = []
    for label in ("thanks", "parting"):
        write_csv(tmp_path / f"{label}.csv", [(f"well {text}", label) for text in TEXTS["thanks"]])
        data = {**base["data"], "test": str(tmp_path / f"{label}.csv")}
        words = ["search.points=3", "search.metric=log-loss", "training.epochs=1"]
        found = tunesmith.learning_curve({**base, "data": data}, words, repeats=2, output=tmp_path / label)
        scores.append(found["points"])
    assert scores[0] == scores[1] and found["higher_is_better"] is False and found["check"] is None
    assert "was not checked" in (tmp_path / label / "learning-curve.md").read_text()
    assert (tmp_path / label / "report.html").read_text().count("<svg") == 1


def test_rows_without_labels(tiny_writer: Path, tmp_path: Path) -> None:
    texts = [{"text": f"{text} {mark} " * 3} for texts in TEXTS.values() for text in texts for mark in "ab"]
    recipe = {
        "task": "text-generation", "model": str(tiny_writer), "method": "lora",
        "data": {"train": str(write_jsonl(tmp_path / "t.jsonl", texts)), "validation": 0.25},
        "training": {"epochs": 1, "batch_size": 4}, "evaluation": {"resamples": 100, "baselines": False},
    }  # fmt: skip
    found = tunesmith.learning_curve(recipe, points=3, repeats=2)
    assert found["higher_is_better"] is False and found["points"][0]["rows"] == 2 and "report" not in found


@pytest.mark.parametrize(
    ("words", "settings", "kind", "message"),
    [
        (
            ["data.validation=null", "data.test=0.2"],
            {},
            RecipeError,
            "a learning curve is scored on validation rows, and there are",
        ),
        (["method=none"], {}, RecipeError, "method: none trains nothing, so more rows change nothing"),
        (["candidates=[{seed: 1}, {seed: 2}]"], {}, RecipeError, "candidates: a learning curve makes its own"),
        (["search.metric=bleu"], {}, RecipeError, "search.metric: unknown choice 'bleu'"),
        ([], {"points": 2}, RecipeError, "points: 2 is not allowed"),
        ([], {"repeats": 1}, RecipeError, "repeats: 1 is not allowed"),
        ([], {"smallest": 0.97}, DataError, "train holds 36 rows; a learning curve needs 3 different sizes from 35"),
        (["training.rows_per_label=4"], {"points": 3, "repeats": 2}, TunesmithError, "cannot be trained on 6 rows"),
    ],
)
def test_mistakes_are_named(
    base: dict[str, Any], words: list[str], settings: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        tunesmith.learning_curve(base, words, **settings)


def killed_in(number: int, patch: pytest.MonkeyPatch, trained: list[list[int]]) -> None:
    """Let Ctrl-C come when shares train together for the time of that number, and note which shares train."""
    carry_out = Passes.carry_out

    def counted(self: Passes, wanted: Any, listen: Any) -> Any:
        trained.append(list(wanted))
        if len(trained) == number:
            raise KeyboardInterrupt
        return carry_out(self, wanted, listen)

    patch.setattr(Passes, "carry_out", counted)


def told(found: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on time and place."""
    return {key: value for key, value in found.items() if key not in ("seconds", "report", "shares")}


def test_a_curve_that_was_killed_ends_as_one_that_was_not(
    curve: tuple[Path, dict[str, Any]],
    base: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, trained = tmp_path / "curve", list[list[int]]()
    killed_in(2, monkeypatch, trained)
    with pytest.raises(KeyboardInterrupt):
        tunesmith.learning_curve(base, output=folder, **SETTINGS)
    assert f"the shares so far are in {folder}; go on with the same words and --resume" in capsys.readouterr().err
    with open(folder / "shares.jsonl", "ab") as file:
        file.write(b'{"ended": 3.0, "shares": {"5"')
    with pytest.raises(CheckpointError, match="exists. Go on with its learning curve with --resume, or choose another"):
        tunesmith.learning_curve(base, output=folder, **SETTINGS)
    found = tunesmith.learning_curve(base, output=folder, resume=True, **SETTINGS)
    assert "5 of 8 shares were trained before" in capsys.readouterr().err
    assert trained == [[0, 1, 2, 3, 4], [5, 6, 7], [5, 6, 7]]
    assert told(found) == told(curve[1])
    assert (folder / "learning-curve.md").read_text() == (curve[0] / "learning-curve.md").read_text()
    assert kept(folder) == kept(curve[0]) and len(kept(folder)) == 2


def kept(folder: Path) -> list[Any]:
    lines = (folder / "shares.jsonl").read_text().splitlines()
    return [{**json.loads(line), "ended": None} for line in lines]


def test_a_curve_that_ended_trains_nothing_again_and_its_seconds_go_on(
    curve: tuple[Path, dict[str, Any]], base: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, trained = Path(shutil.copytree(curve[0], tmp_path / "curve")), list[list[int]]()
    killed_in(0, monkeypatch, trained)  # never: only what trains is noted
    first, second = (json.loads(line) for line in (folder / "shares.jsonl").read_text().splitlines())
    lines = [json.dumps(first), json.dumps({**second, "ended": 5000.0})]
    (folder / "shares.jsonl").write_text("\n".join(lines) + "\n")
    found = tunesmith.learning_curve(base, output=folder, resume=True, **SETTINGS)
    assert told(found) == told(curve[1]) and trained == [] and found["seconds"] > 5000
    (folder / "shares.jsonl").write_text(lines[1] + "\n")
    with pytest.raises(CheckpointError, match="shares.jsonl, line 1 is damaged"):
        tunesmith.learning_curve(base, output=folder, resume=True, **SETTINGS)


@pytest.mark.parametrize(
    ("words", "settings", "message"),
    [
        (["training.epochs=3"], {}, "training.epochs is 3, there it was 2"),
        (["method.rank=2"], {}, "method.rank is 2, there it was 8"),
        ([], {"points": 3}, "points is 3, there it was 4"),
        ([], {"repeats": 3}, "repeats is 3, there it was 2"),
        ([], {"width": 8}, "width is 8, there it was 5"),
    ],
)
def test_a_curve_of_other_words_is_refused(
    curve: tuple[Path, dict[str, Any]], base: dict[str, Any], words: list[str], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=f"holds another learning curve: {message}. Go on with the same words"):
        tunesmith.learning_curve(base, words, output=curve[0], resume=True, **{**SETTINGS, **settings})


def test_a_curve_of_other_rows_is_refused(
    curve: tuple[Path, dict[str, Any]], base: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = Path(shutil.copy(base["data"]["train"], tmp_path / "train.csv"))
    recipe = {**base, "data": {**base["data"], "train": str(train)}}
    settings: dict[str, Any] = {**SETTINGS, "output": tmp_path / "curve"}
    killed_in(2, monkeypatch, [])
    with pytest.raises(KeyboardInterrupt):
        tunesmith.learning_curve(recipe, **settings)
    train.write_text(train.read_text().replace("hello", "hallo"))
    with pytest.raises(CheckpointError, match="of other data: train rows is 'sha256:.*Put the files back as"):
        tunesmith.learning_curve(recipe, resume=True, **settings)


def test_a_curve_goes_on_from_where_one_is(
    curve: tuple[Path, dict[str, Any]], base: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(
        CheckpointError, match=r"holds no learning curve to go on with \(asked.json is missing\). Leave"
    ):
        tunesmith.learning_curve(base, output=tmp_path / "none", resume=True)
    with pytest.raises(RecipeError, match="resume: there is no output to go on in"):
        tunesmith.learning_curve(base, resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="other exists. Remove it first, or choose another output"):
        tunesmith.learning_curve(base, output=tmp_path / "other")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(base))
    folder = str(shutil.copytree(curve[0], tmp_path / "curve"))  # the report is written anew, and others read it
    words = ["search.width=5", "--points", "4", "--repeats", "2", "--output", folder, "--resume", "--json"]
    ended = run_command("learning-curve", str(recipe), *words)
    assert ended.returncode == 0 and told(json.loads(ended.stdout)) == told(curve[1])
