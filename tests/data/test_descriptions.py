from pathlib import Path

import pytest

import tunesmith
from tests.conftest import write_csv
from tunesmith.core.errors import DataError
from tunesmith.data.descriptions import label_texts


def test_names_and_descriptions(tmp_path: Path) -> None:
    path = tmp_path / "labels.yaml"
    path.write_text("card_arrival: the card is\n  not here yet\n")
    assert label_texts(["card_arrival", "top-up"], str(path)) == [
        ["card arrival", "the card is not here yet"],
        ["top up"],
    ]
    (tmp_path / "labels.json").write_text('{"top-up": "add\\u0020money"}')
    assert label_texts(["top-up"], str(tmp_path / "labels.json")) == [["top up", "add money"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("card_arival: late", "unknown label 'card_arival'; did you mean 'card_arrival'"),
        ("card_arrival: ' '", "the description of 'card_arrival' is ' '; a text is needed"),
        ("card_arrival:", "the description of 'card_arrival' is None"),
        ("card_arrival: a\ncard_arrival: b", "line 2: 'card_arrival' stands twice"),
        ("- card_arrival", "a file of descriptions is a mapping of keys to values"),
        ("0: late", "the label 0 is no text; write it in quotation marks"),
        ("2026-13-45: late", "not valid YAML: month must be in"),
        ("{", "not valid YAML"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "labels.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        label_texts(["card_arrival"], str(path))
    with pytest.raises(DataError, match="cannot be read"):
        label_texts(["card_arrival"], str(tmp_path / "none.yaml"))


def test_descriptions_in_a_run(recipe: dict[str, object], data_folder: Path) -> None:
    (data_folder / "labels.yaml").write_text("greeting: hello good morning hi\n")
    data = {**recipe["data"], "label_descriptions": str(data_folder / "labels.yaml")}  # type: ignore[dict-item]
    task = {"name": "text-classification", "head_start": "label-text"}
    run = tunesmith.train({**recipe, "data": data, "task": task})
    assert any("2 of 3 labels have no description" in warning for warning in run.summary["warnings"])
    rows = [(f"{text} {extra}", label) for extra in "abcd" for text, label in (("one", "a_b"), ("two", "A b"))]
    train = write_csv(data_folder / "alike.csv", rows)
    with pytest.raises(DataError, match="'A b' and 'a_b' are the same words in another spelling"):
        tunesmith.train({**recipe, "data": {"train": str(train), "validation": 0.3}, "task": task}, overwrite=True)
