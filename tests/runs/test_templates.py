"""Several templates for the same rows: drawn in training, averaged in answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tunesmith
from tunesmith.core.errors import RecipeError
from tunesmith.data.examples import Columns, from_texts
from tunesmith.data.tokens import TokenRows, VariedRows

Recipe = dict[str, Any]


def rows(*lists: list[int]) -> TokenRows:
    ends = np.cumsum([0, *map(len, lists)])
    return TokenRows(np.array([number for one in lists for number in one], np.int32), ends, np.diff(ends))


def test_every_epoch_draws_a_wording_per_row() -> None:
    first, second = rows([1], [2], [3], [4]), rows([5, 6], [7, 8], [9, 9], [9, 10])
    both = VariedRows([first, second])
    drawn = np.array([[len(both.seen(row, draw).ids) for row in range(4)] for draw in range(1, 41)])
    assert 0.3 < (drawn == 2).mean() < 0.7 and len({tuple(epoch) for epoch in drawn.tolist()}) > 8
    assert [len(both.seen(row, 7).ids) for row in range(4)] == drawn[6].tolist()
    assert [len(both.seen(row).ids) for row in range(4)] == [1, 1, 1, 1]
    assert both.lengths.tolist() == [2, 2, 2, 2] and both.length(3) == 2 and both.truncated == 0
    assert both.wordings == [first, second] and first.wordings == [first] and first.length(0) == 1


def test_answers_are_means_over_the_templates(recipe: Recipe, tmp_path: Path) -> None:
    prompt = {"template": "{text}", "templates": ["hello {text}", "{text} so much"]}
    run = tunesmith.train({**recipe, "prompt": prompt, "output": str(tmp_path / "all")})
    again = tunesmith.train({**recipe, "prompt": prompt, "output": str(tmp_path / "again")})
    texts = ["goodbye friend", "good morning", "many thanks to you all"]
    whole = run.predict_proba(texts)
    assert np.array_equal(whole, again.predict_proba(texts))
    tokens = run._tokens(from_texts(texts, Columns("text", None)))
    worded = [run._opened[1].probabilities(part).numpy() for part in tokens.wordings]
    assert len(worded) == 3 and np.allclose(whole, np.mean(worded, axis=0), atol=1e-12)
    assert not np.allclose(worded[0], worded[1], atol=1e-4)
    plain = tunesmith.train({**recipe, "output": str(tmp_path / "plain")})
    assert not np.allclose(plain.predict_proba(texts), whole, atol=1e-4)
    saved = tunesmith.Run.load(tmp_path / "all").evaluate(recipe["data"]["test"])
    assert saved["accuracy"].value == pytest.approx(run.metrics["test"]["accuracy"]["value"])


def test_a_template_without_a_field(recipe: Recipe) -> None:
    with pytest.raises(RecipeError, match="has no field"):
        tunesmith.train({**recipe, "prompt": {"templates": ["nothing"]}})
