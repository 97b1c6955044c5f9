"""Last layers: what trains, and that what lies below costs nothing."""

import pytest
import torch
import transformers
from torch import nn

from tunesmith.core.errors import TargetError
from tunesmith.methods.last_layers import LastLayers
from tunesmith.models.seams import open_seams
from tunesmith.testing import tiny_models

SMALL = {"d_model": 16, "d_ff": 24, "d_kv": 8, "num_heads": 2, "num_layers": 3, "vocab_size": 50}


def owners(model: nn.Module, count: int) -> set[str]:
    copies = LastLayers(count=count).attach(open_seams(model)).copies
    return {".".join(path.split(".")[: 3 if path.startswith(("encoder", "decoder")) else 1]) for path in copies}


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("encoder", {"encoder.layer.1", "pooler"}),
        ("decoder", {"layers", "norm"}),
        ("transposed-decoder", {"h", "ln_f"}),
        ("encoder-decoder", {"encoder.layers.1", "decoder.layers.1"}),
        ("vision", None),
    ],
)
def test_the_top_trains(family: str, expected: set[str] | None) -> None:
    model = tiny_models()[family].build()
    found = owners(model, 1)
    if expected is not None:
        assert found == expected
    trained = {path for path in open_seams(model).deltas["default"].copies}
    assert not any(".0." in path for path in trained if "layer" in path or path.startswith("h."))
    assert not any("embed" in path for path in trained)


def test_both_stacks_of_t5_and_their_final_norms() -> None:
    model = transformers.T5Model(transformers.T5Config(**SMALL))
    trained = owners(model, 2)
    assert trained == {
        "encoder.block.1", "encoder.block.2", "encoder.final_layer_norm.weight",
        "decoder.block.1", "decoder.block.2", "decoder.final_layer_norm.weight",
    }  # fmt: skip


def test_frozen_blocks_keep_nothing_for_the_backward_pass() -> None:
    tiny = tiny_models()["encoder"]
    model = tiny.build()
    seams = open_seams(model)
    kept = []
    for count in (1, 2):
        delta = LastLayers(count=count).attach(seams)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor, s=sizes: s.append(tensor.numel()), lambda _: None):
            model(**tiny.inputs())
        kept.append(sum(sizes))
        delta.detach()
    delta = LastLayers(count=1).attach(seams)
    states: dict[str, bool] = {}
    for number in (0, 1):
        model.encoder.layer[number].register_forward_hook(
            lambda module, _, out, n=number: states.update(
                {str(n): (out[0] if isinstance(out, tuple) else out).requires_grad}
            )
        )
    model(**tiny.inputs())
    assert states == {"0": False, "1": True}
    assert kept[0] < 0.65 * kept[1]


def test_more_blocks_than_there_are() -> None:
    with pytest.raises(TargetError, match=r"method\.count=3: 'encoder\.layer' of BertModel has only 2 blocks.*1 to 2"):
        LastLayers(count=3).attach(open_seams(tiny_models()["encoder"].build()))
    with pytest.raises(TargetError, match="Sequential has no stack of like blocks"):
        LastLayers().attach(open_seams(nn.Sequential(nn.Linear(2, 2))))
