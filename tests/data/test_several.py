"""Several files read as one."""

from pathlib import Path

import pytest

from tests.conftest import write_csv
from tunesmith.core.errors import DataError
from tunesmith.prompts.template import Template
from tunesmith.recipe.schema import DataSettings
from tunesmith.training.reading import read_labelled


def test_rows_of_further_files_come_behind_and_say_where_they_stand(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [("one", "x"), ("two", "y")])
    (tmp_path / "b.jsonl").write_text('{"text": "three", "label": "x"}\n', encoding="utf-8")
    data = DataSettings(train="a.csv", also_train=["b.jsonl"])
    found = read_labelled((data.train, *data.also_train), data, Template("{text}"), tmp_path)
    assert [found.text(row) for row in range(3)] == ["one", "two", "three"]
    assert found.where[1] == "line 3" and found.where[2] == f"{tmp_path / 'b.jsonl'}, line 1"
    (tmp_path / "b.jsonl").write_text('{"words": "three"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="b.jsonl, line 1"):
        read_labelled((data.train, *data.also_train), data, Template("{text}"), tmp_path)
