from pathlib import Path

import peft
import pytest
import torch
import transformers
from torch import Tensor, nn

import tunesmith
from tunesmith.core.errors import CheckpointError
from tunesmith.models.seams import open_seams

PIXELS = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def resnet() -> nn.Module:
    """A tiny ResNet whose running statistics are not those it begins with."""
    torch.manual_seed(0)
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    model = transformers.ResNetForImageClassification(config).double()
    with torch.no_grad():
        for _ in range(3):
            model(PIXELS + 0.5)
    return model.eval()


def answer(model: nn.Module) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model.eval()(pixel_values=PIXELS).logits
    return logits


@pytest.mark.parametrize("method", ["lora", "norm", "full"])
def test_training_leaves_the_bases_statistics(method: str, tmp_path: Path) -> None:
    model = resnet()
    before, state = answer(model), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = {"layers": ["convolution"]} if method == "lora" else {}
    delta = tunesmith.attach(model, method, **settings)
    optimizer = torch.optim.SGD(delta.parameters(), lr=0.1)
    for _ in range(3):
        model.train()(PIXELS).logits.square().mean().backward()
        optimizer.step()
    tuned = answer(model)
    assert not torch.equal(tuned, before)
    delta.save(tmp_path)
    fresh = resnet()
    tunesmith.attach(fresh, tmp_path)
    assert torch.equal(answer(fresh), tuned)  # what is saved is all that changed
    delta.detach()
    assert torch.equal(answer(model), before)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_a_row_does_not_depend_on_its_neighbours_in_training() -> None:
    model = resnet()
    tunesmith.attach(model, "lora", layers=["convolution"])
    with torch.no_grad():
        together, alone = model.train()(PIXELS).logits, model(PIXELS[:1]).logits
    assert torch.allclose(together[:1], alone, atol=1e-12)
    open_seams(model).close()
    with torch.no_grad():
        assert not torch.allclose(model(PIXELS).logits[:1], model(PIXELS[:1]).logits, atol=1e-3)  # its own way again


@pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning")  # PEFT's, of batch norms
@pytest.mark.parametrize("drifted", [False, True])
def test_norms_of_peft_with_statistics(drifted: bool, tmp_path: Path) -> None:
    theirs = peft.get_peft_model(resnet(), peft.LNTuningConfig(target_modules=["normalization"]))
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
        if drifted:
            theirs.train()(PIXELS)
        theirs.eval().save_pretrained(tmp_path)
        expected, model = theirs(PIXELS).logits, resnet()
    if drifted:
        with pytest.raises(CheckpointError, match="running statistics that drifted in training"):
            tunesmith.attach(model, tmp_path)
        return
    delta = tunesmith.attach(model, tmp_path)
    assert (answer(model) - expected).abs().max() <= 1e-10 * expected.abs().max()
    delta.save(tmp_path / "ours")
    again = peft.PeftModel.from_pretrained(resnet(), tmp_path / "ours").eval()
    assert (answer(again) - expected).abs().max() <= 1e-10 * expected.abs().max()
