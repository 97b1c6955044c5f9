import pytest
import torch
import transformers

from tunesmith.core.errors import CompatibilityError, RecipeError
from tunesmith.models.backbone import pool
from tunesmith.models.layout import Layout
from tunesmith.models.structure import is_causal
from tunesmith.tasks.text_classification import TextClassification
from tunesmith.testing import tiny_models


@pytest.mark.parametrize(
    ("family", "pooling"), [("encoder", "mean"), ("decoder", "last"), ("transposed-decoder", "last")]
)
def test_pooling_follows_the_model(family: str, pooling: str) -> None:
    model = tiny_models()[family].build()
    model.untrained_pooler = False
    assert TextClassification().prepare(model, {}).pooling == pooling
    named = "last" if family != "encoder" else "cls"
    assert TextClassification().prepare(model, {"pooling": named}).pooling == named
    assert is_causal(model) == (pooling == "last")


def test_models_that_do_not_fit_are_refused() -> None:
    for family, message in (
        ("vision", "reads 'pixel_values', not text"),
        ("encoder-decoder", "an encoder and a decoder"),
    ):
        with pytest.raises(CompatibilityError, match=message):
            TextClassification().prepare(tiny_models()[family].build(), {})
    model = tiny_models()["decoder"].build()
    with pytest.raises(RecipeError, match="the first token sees nothing of the rest"):
        TextClassification(pooling="cls").prepare(model, {})
    with pytest.raises(RecipeError, match="has no trained pooler"):
        TextClassification(pooling="pooler").prepare(model, {})


def test_pooling_by_hand() -> None:
    hidden, layout = torch.arange(12.0).view(6, 2), Layout((1, 2, 3))
    assert pool(hidden, layout, "cls").tolist() == [[0, 1], [2, 3], [6, 7]]
    assert pool(hidden, layout, "last").tolist() == [[0, 1], [4, 5], [10, 11]]
    assert pool(hidden, layout, "mean").tolist() == [[0, 1], [3, 4], [8, 9]]


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_the_head_starts_as_a_nearest_prototype_classifier(kind: str) -> None:
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(3, 8, generator=draw)
    labels = torch.arange(30) % 3
    features = centres[labels] + 0.1 * torch.randn(30, 8, generator=draw)
    task = TextClassification(head_kind=kind)
    head = task.head(8, 3).eval()
    task.start(head, features, labels)
    with torch.no_grad():
        assert torch.equal(head(features).argmax(-1), labels)


def test_the_models_own_pooler() -> None:
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    model = transformers.BertModel(config).eval()
    model.untrained_pooler = False
    task = TextClassification(pooling="pooler").prepare(model, {})
    from tunesmith.models.backbone import Backbone
    from tunesmith.models.layout import ragged

    backbone, batch = Backbone(model), ragged([[1, 2, 3], [4, 5]])
    with torch.no_grad():
        ours = task.features(backbone, backbone.hidden(batch), batch.layout)
        expected = model(torch.tensor([[4, 5]])).pooler_output
    assert torch.allclose(ours[0], expected[0], atol=1e-5)
