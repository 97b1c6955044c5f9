"""Shares of the training file: test and validation, drawn once, with near copies in one split."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tunesmith
from tests.conftest import real, write_csv, write_jsonl
from tests.data.test_near import slowly
from tunesmith.core.errors import DataError, RecipeError
from tunesmith.data.conversations import Conversation
from tunesmith.recipe.loading import Checked, load_recipe
from tunesmith.runs.opening import read_corpus
from tunesmith.runs.session import open_session
from tunesmith.training.corpus import Corpus


def corpus_of(recipe: dict[str, Any], **data: Any) -> Corpus:
    checked: Checked = load_recipe({**recipe, "data": {**recipe["data"], **data}})
    return read_corpus(checked, open_session(checked))


def indices(corpus: Corpus) -> dict[str, list[int]]:
    return {name: split.index.tolist() for name, split in corpus.splits.items()}


def test_a_test_share_of_every_label(recipe: dict[str, Any]) -> None:
    corpus = corpus_of(recipe, test=0.2, validation=0.1)
    found = indices(corpus)
    assert {name: len(rows) for name, rows in found.items()} == {"train": 42, "validation": 6, "test": 12}
    assert sorted(row for rows in found.values() for row in rows) == list(range(60)), "every row once"
    assert list(corpus.splits["test"].audit.classes.values()) == [4, 4, 4]
    assert indices(corpus_of(recipe, test=0.2, validation=0.1)) == found
    assert indices(corpus_of(recipe, test=0.2, validation=0.4))["test"] == found["test"]
    assert indices(corpus_of({**recipe, "seed": 1}, test=0.2, validation=0.1))["test"] != found["test"]
    assert indices(corpus_of({**recipe, "seed": 1}, test=0.2, validation=0.1, seed=0)) == found


def test_a_run_with_a_test_share(recipe: dict[str, Any], data_folder: Path, tmp_path: Path) -> None:
    run = tunesmith.train({**recipe, "data": {**recipe["data"], "test": 0.2}})
    assert list(run.metrics) == ["validation", "test"] and run.summary["data"]["test"]["rows"] == 12
    assert "scored on 12 rows of test" in run.report().read_text()
    facts = tunesmith.merge(run, tmp_path / "merged")
    assert facts["rows"] == 12 and facts["rows_from"] == "the share of train that was held out for test"
    write_csv(data_folder / "new.csv", [(f"where is my parcel {n}", "parcel") for n in range(10)])
    again = {"start_from": str(run.folder), "data": {"train": str(data_folder / "new.csv"), "validation": 0.3}}
    more = tunesmith.train({**again, "training": recipe["training"], "output": str(tmp_path / "more")})
    assert more.summary["forgetting"]["rows"] == 12
    assert more.summary["forgetting"]["before"]["accuracy"] == pytest.approx(run.metrics["test"]["accuracy"], abs=0.5)
    assert more.summary["forgetting"]["before"]["accuracy"]["value"] == run.metrics["test"]["accuracy"]["value"]


def test_a_candidate_with_a_seed_of_its_own_keeps_the_split(recipe: dict[str, Any]) -> None:
    data = {**recipe["data"], "test": 0.2}
    common = load_recipe({**recipe, "data": data, "candidates": [{"seed": 5}, {"training.learning_rate": 1e-3}]})
    session = open_session(common)
    first, *others = [read_corpus(one, session) for one in (common, *common.candidates)]
    assert all(indices(other) == indices(first) for other in others)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"test": 1.5}, "data.test: the share 1.5 must lie between 0 and 1, or be a file"),
        ({"test": 0}, "data.test: the share 0.0 must lie between 0 and 1"),
        ({"test": 0.5, "validation": 0.5}, "0.5 for validation and 0.5 for test leave nothing to train on"),
        ({"test": "a.csv", "validation": "b.csv", "near_copies": 0.7}, "data.near_copies: validation and test are fil"),
        ({"columns": ["text", "text"]}, "names a column twice or not at all"),
        ({"near_copies": 1.5}, "data.near_copies: 1.5 is not allowed"),
    ],
)
def test_what_is_refused(recipe: dict[str, Any], data: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe({**recipe, "data": {**recipe["data"], **data}})


def test_too_few_rows(recipe: dict[str, Any]) -> None:
    with pytest.raises(
        DataError, match=r"a share of 0\.005 of 60 rows .*leaves none for test .*data\.test, or give a t"
    ):
        corpus_of(recipe, test=0.005)


def test_near_copies_of_labelled_texts(recipe: dict[str, Any]) -> None:
    """The file holds five near copies of every text."""
    corpus = corpus_of(recipe, test=0.25, validation=0.25, near_copies=0.7)
    texts = {name: [split.text(row)[:-2] for row in range(len(split.index))] for name, split in corpus.splits.items()}
    assert not set(texts["train"]) & set(texts["test"]) and not set(texts["validation"]) & set(texts["test"])
    assert {name: len(found) for name, found in texts.items()} == {"train": 30, "validation": 15, "test": 15}
    assert any("60 rows make 12 groups; 60 rows are in groups of several" in text for text in corpus.warnings)
    assert corpus.splits["test"].audit.together == 15
    with pytest.raises(DataError, match=r"near_copies=0\.01: 60 of 60 rows are near copies"):
        corpus_of(recipe, test=0.25, near_copies=0.01)


@pytest.fixture
def written(tiny_writer: Path, tmp_path: Path) -> dict[str, Any]:
    return {"task": {"name": "translation", "instruction": "Translate to Chinese, please:"}, "model": str(tiny_writer),
            "data": {"train": str(tmp_path / "pairs.jsonl"), "validation": 0.1, "test": 0.2},
            "output": str(tmp_path / "run")}  # fmt: skip


def test_no_near_copies_across_splits_of_real_pairs(written: dict[str, Any], tmp_path: Path) -> None:
    path = real("TUNESMITH_DATA") / "tatoeba_cmn_eng" / "cmn.txt"
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()][4000:4600]
    write_jsonl(tmp_path / "pairs.jsonl", [{"source": source, "target": target} for source, target in rows])
    for near in (None, 0.5):
        corpus = corpus_of(written, near_copies=near, max_tokens=256)
        splits = list(corpus.splits.values())
        assert sum(len(split.index) for split in splits) == 600
        assert near is None or len(corpus.splits["test"].index) == 120
        talks = [Conversation.of(split.text(row)) for split in splits for row in range(len(split.index))]
        where = np.array([number for number, split in enumerate(splits) for _ in split.index])
        asked = [talk.question[0]["content"].partition("\n")[2] for talk in talks]
        groups = np.array(slowly([asked, [talk.answer for talk in talks]], 0.5))
        crossing = [group for group in set(groups) if len(set(where[groups == group])) > 1]
        assert bool(crossing) == (near is None)


def test_pairs_without_a_header(written: dict[str, Any], tmp_path: Path) -> None:
    whole = (real("TUNESMITH_DATA") / "tatoeba_cmn_eng" / "cmn.txt").read_text(encoding="utf-8")
    path = tmp_path / "cmn.txt"
    path.write_text("".join(whole.splitlines(keepends=True)[:3000]), encoding="utf-8")
    corpus = corpus_of(written, train=str(path), columns=["target", "source"], near_copies=0.7)
    assert [len(corpus.splits[name].index) for name in ("test", "validation")] == [600, 300]
    talk = Conversation.of(corpus.splits["train"].examples.text(0))
    assert [message["content"] for message in talk.messages] == ["Translate to Chinese, please:\n嗨。", "Hi."]


def test_questions_with_a_test_share(written: dict[str, Any], tmp_path: Path) -> None:
    words = ["red", "blue", "green", "white"]
    write_jsonl(tmp_path / "pairs.jsonl", [{"source": f"{words[n % 4]} {n}", "target": f"{n}"} for n in range(40)])
    settings = {"training": {"epochs": 1}, "evaluation": {"resamples": 100}}
    settings["task"] = {**written["task"], "answered_rows": 2, "samples": 0, "decoding": {"max_new_tokens": 2}}
    run = tunesmith.train({**written, **settings})
    data = json.loads((run.folder / "metrics.json").read_text())["data"]
    assert {name: data[name]["rows"] for name in data} == {"train": 28, "validation": 4, "test": 8}
    facts = tunesmith.merge(run, tmp_path / "merged")
    assert facts["rows"] == 8 and facts["rows_from"] == "the share of train that was held out for test"


def test_a_long_text_ends_in_its_test_share(written: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "prose.txt").write_text("".join(f"line {n} of a long text about nothing\n" for n in range(3000)))
    recipe = {**written, "task": {"name": "text-generation", "documents": "file"}}
    data = {"train": str(tmp_path / "prose.txt"), "max_tokens": 64}
    corpus = corpus_of(recipe, **data, test=0.2, validation=0.1)
    train, validation, test = (set(corpus.splits[name].index.tolist()) for name in ("train", "validation", "test"))
    assert max(train) < min(validation) <= max(validation) < min(test) == max(test) - len(test) + 1
    pieces = max(test) + 1
    assert len(test) == round(0.2 * pieces) and len(validation) == round(0.1 * pieces)
    with pytest.raises(DataError, match=r"data\.near_copies=0\.7 is for rows, and this is one long text"):
        corpus_of(recipe, **data, near_copies=0.7)
    (tmp_path / "prose.txt").write_text("short\n")
    with pytest.raises(DataError, match=r"too short to hold 0\.2 of it out for test: 1 pieces"):
        corpus_of(recipe, **data)
