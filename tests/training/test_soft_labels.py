"""Probabilities learned in place of labels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tunesmith
from tests.conftest import TEXTS, write_jsonl
from tunesmith.core.errors import DataError, RecipeError
from tunesmith.models.layout import ragged
from tunesmith.tasks.text_classification import TextClassification

Recipe = dict[str, Any]
LABELS = sorted(TEXTS)


def rows(share: float) -> list[Recipe]:
    """Every row's own label gets a share, the others what is left."""
    found = []
    for label, texts in TEXTS.items():
        for text in texts:
            for extra in "abcde":
                soft = {name: share if name == label else (1 - share) / 2 for name in LABELS}
                found.append({"text": f"{text} {extra}", "label": label, "soft": json.dumps(soft)})
    return found


def soft_recipe(recipe: Recipe, folder: Path, share: float, **changes: Any) -> Recipe:
    path = write_jsonl(folder / f"soft{share}.jsonl", rows(share))
    return {**recipe, "data": {**recipe["data"], "train": str(path), "soft_labels": "soft"}, **changes}


def test_the_loss_is_the_cross_entropy_to_them() -> None:
    logits, wanted = torch.randn(3, 4, dtype=torch.float64), torch.rand(3, 4).softmax(-1)
    batch = ragged([[1], [2, 3], [4, 5, 6]], labels=wanted.tolist())
    parts: Any = (None, torch.nn.Identity(), None)
    found = TextClassification().loss_of(*parts, logits, batch, 0.0)
    assert found.item() == pytest.approx(-(wanted.double() * logits.log_softmax(-1)).sum(-1).mean().item(), rel=1e-6)


def test_certain_soft_labels_are_labels(recipe: Recipe, tmp_path: Path) -> None:
    soft = tunesmith.train(soft_recipe(recipe, tmp_path, 1.0, output=str(tmp_path / "soft")))
    hard = soft_recipe(recipe, tmp_path, 1.0, output=str(tmp_path / "hard"))
    del hard["data"]["soft_labels"]
    plain = tunesmith.train(hard)
    texts = [text for some in TEXTS.values() for text in some]
    assert np.allclose(soft.predict_proba(texts), plain.predict_proba(texts), atol=1e-5)


def test_unsure_labels_make_an_unsure_model(recipe: Recipe, tmp_path: Path) -> None:
    training = {"epochs": 12, "batch_size": 8, "learning_rate": 2e-2, "best": "last"}
    sure, unsure = (
        tunesmith.train(soft_recipe(recipe, tmp_path, share, training=training, output=str(tmp_path / str(share))))
        for share in (1.0, 0.6)
    )
    texts = [text for some in TEXTS.values() for text in some]
    first, second = (run.predict_proba(texts).max(1).mean() for run in (sure, unsure))
    assert first > second + 0.15 and second == pytest.approx(0.6, abs=0.12)


@pytest.mark.parametrize(("cell", "said"), [
    ("0.3", "no JSON object"), ('{"greeting": 0.5}', "sum to 0.500"), ('{"greting": 1}', "did you mean 'greeting'"),
    ('{"greeting": 2, "thanks": -1}', "from 0 to 1"), ('{"greeting": true}', "from 0 to 1"),
    pytest.param('{"greeting": ' + "1" * 5000 + "}", "no JSON object", id="digits"),
    pytest.param("[" * 100_000, "no JSON object", id="deep"),
])  # fmt: skip
def test_what_is_refused(recipe: Recipe, tmp_path: Path, cell: str, said: str) -> None:
    given = rows(0.8)
    given[4]["soft"] = cell
    path = write_jsonl(tmp_path / "bad.jsonl", given)
    with pytest.raises(DataError, match=said) as error:
        tunesmith.train({**recipe, "data": {"train": str(path), "soft_labels": "soft"}})
    assert "line 5" in str(error.value)


def test_cleaning_leaves_the_labels_in_them_alone(recipe: Recipe, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "tags.jsonl", json.loads(json.dumps(rows(0.8)).replace("greeting", "a<b>c")))
    data = {"train": str(path), "soft_labels": "soft", "cleaning": ["html"], "validation": 0.3}
    assert "a<b>c" in tunesmith.train({**recipe, "data": data}).labels


def test_a_task_that_writes_has_no_labels(recipe: Recipe) -> None:
    with pytest.raises(RecipeError, match=r"data\.soft_labels"):
        tunesmith.train({"task": "instruction-tuning", "data": {**recipe["data"], "soft_labels": "x"}})
