"""Episodes of texts: second order through a delta on a text model, and MiniLM on held-out intents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import tunesmith
from tests.conftest import TEXTS, real
from tests.fewshot.test_learners import outer_gradient_is_right
from tunesmith.core.errors import CompatibilityError
from tunesmith.data.tokens import tokenize
from tunesmith.fewshot.episodes import EpisodeSampler, EpisodeShape
from tunesmith.fewshot.learners.base import Learned
from tunesmith.fewshot.learners.maml import Maml
from tunesmith.fewshot.rows import TextRows
from tunesmith.methods.base import Method
from tunesmith.models.backbone import Backbone
from tunesmith.tasks.text_classification import TextClassification


def rows_of(folder: Path) -> tuple[TextRows, list[int]]:
    model = transformers.AutoModel.from_pretrained(folder).double().eval()
    task = TextClassification().prepare(model, {})
    texts = [(text, code) for code, own in enumerate(TEXTS.values()) for text in own]
    tokens = tokenize(transformers.AutoTokenizer.from_pretrained(folder), [text for text, _ in texts], 64)
    return TextRows(Backbone(model), task, tokens), [code for _, code in texts]


@pytest.mark.parametrize("method", [tunesmith.methods.Lora(rank=2), tunesmith.methods.Full()])
def test_second_order_through_a_text_model(tiny_folder: Path, method: Method) -> None:
    rows, labels = rows_of(tiny_folder)
    numbers = torch.tensor([[0, 5, 5], [9, 1, 0]])
    with torch.no_grad():
        quick = rows.features(numbers)
        with rows.twice():
            plain = rows.features(numbers)
    assert quick.shape == (2, 3, 32) and torch.allclose(quick, plain, rtol=1e-10)
    learned = Learned(method.attach(rows.backbone.seams), torch.nn.Module())
    with torch.no_grad():
        for own in learned.parameters():  # LoRA's B starts at zero, where A has no gradient
            own += 0.05 * torch.randn(own.shape, generator=torch.Generator().manual_seed(own.numel()), dtype=own.dtype)
    learner = Maml(order="second", inner_steps=2, inner_rate=0.3)
    episodes = EpisodeSampler(labels, list(TEXTS), EpisodeShape(3, 2, 2), 0).draw(0, 2)
    outer_gradient_is_right(learner, learned, rows, episodes)


def test_every_row_has_its_own_features(tiny_folder: Path) -> None:
    rows, _ = rows_of(tiny_folder)
    numbers = torch.tensor([[3, 0, 7], [11, 3, 5]])
    alone = torch.stack([rows.features(torch.tensor([number]))[0] for number in numbers.flatten()]).view(2, 3, -1)
    assert len({len(rows.tokens[int(number)]) for number in numbers.flatten()}) > 1
    assert torch.allclose(rows.features(numbers), alone, rtol=1e-9)
    for most in (2, 20):  # every row alone, and some together
        assert torch.allclose(rows.known(numbers, per_pass=most).features(numbers), alone, rtol=1e-9)


def test_passes_of_texts_are_limited_by_their_tokens(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = rows_of(tiny_folder)
    seen = list[int]()
    own = rows.features

    def counted(part: torch.Tensor) -> torch.Tensor:
        seen.append(int(rows.tokens.lengths[part].sum()))
        return own(part)

    monkeypatch.setattr(rows, "features", counted)
    rows.known(torch.arange(len(rows)), per_pass=30)
    assert len(seen) > 1 and max(seen) <= 30 and sum(seen) == rows.tokens.lengths.sum()


def test_a_method_without_second_gradients_is_named(tiny_folder: Path) -> None:
    rows, labels = rows_of(tiny_folder)
    learned = Learned(tunesmith.methods.Lokr(rank=2).attach(rows.backbone.seams), torch.nn.Module())
    episodes = EpisodeSampler(labels, list(TEXTS), EpisodeShape(2, 1, 1), 0).draw(0, 1)
    with pytest.raises(CompatibilityError, match=r"learner\.order=second needs gradients of gradients"):
        Maml(order="second", inner_steps=2).accumulate(learned, rows, episodes)
    assert np.isfinite(Maml(order="first", inner_steps=2).accumulate(learned, rows, episodes))


@pytest.mark.real
def test_minilm_on_held_out_intents(tmp_path: Path) -> None:
    """Steps on some intents of BANKING77; episodes of others are answered far above chance."""
    recipe = {
        "data": {"train": str(real("TUNESMITH_DATA") / "banking77" / "train.csv"), "label": "category", "test": 0.3},
        "method": {"name": "lora", "rank": 4, "layers": "top-half"},
        "episodes": {"ways": 8, "shots": 1, "queries": 1},
        "training": {"steps": 6, "episodes_per_step": 1},
        "evaluation": {"ways": 5, "shots": 1, "queries": 2, "episodes": 40, "resamples": 200},
        "output": str(tmp_path / "run"),
    }
    run = tunesmith.episodes(recipe)
    assert run.recipe.recipe.model.name == "minilm"
    assert run.metrics["5-way 1-shot"]["low"] > 0.6  # chance is 0.2
    assert run.summary["gain"]["5-way 1-shot"]["high"] > 0
    answer = run.answer(
        {"lost": ["I lost my card"], "rate": ["what is the exchange rate?"]},
        ["my card is gone", "how do you convert currencies?"],
    )
    assert [one.label for one in answer] == ["lost", "rate"]
