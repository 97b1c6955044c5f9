"""adapter_model.bin of older PEFT: tensors are read, anything else is refused before it can run."""

import json
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import tunesmith
from tunesmith.core.errors import CheckpointError, SecurityError
from tunesmith.methods.legacy import read_pickled
from tunesmith.methods.lora import Lora
from tunesmith.methods.store import save_delta
from tunesmith.models.seams import open_seams
from tunesmith.testing import tiny_models


def answer(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(**tiny_models()["encoder"].inputs()).last_hidden_state


@pytest.fixture
def theirs(tmp_path: Path) -> tuple[nn.Module, Path]:
    """A delta that PEFT saved, its weights once more as older versions wrote them, the safetensors gone."""
    config = peft.LoraConfig(r=4, target_modules=["query", "dense"], init_lora_weights=False)
    model = peft.get_peft_model(tiny_models()["encoder"].build(), config).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    torch.save(peft.get_peft_model_state_dict(model), tmp_path / "adapter_model.bin")
    return model, tmp_path


def test_tensors_are_read(theirs: tuple[nn.Module, Path]) -> None:
    model = tiny_models()["encoder"].build()
    tunesmith.attach(model, theirs[1])
    assert (answer(model) - answer(theirs[0])).abs().max() <= 1e-6


def test_kinds_and_views_come_back_equal(tmp_path: Path) -> None:
    whole = torch.arange(24, dtype=torch.float64)
    tensors = OrderedDict(
        half=torch.randn(3, 2).half(), brain=torch.randn(4).bfloat16(), view=whole[4:16].view(3, 4).t(),
        scalar=torch.tensor(3), trained=nn.Parameter(torch.randn(2)), flags=torch.tensor([True, False]),
    )  # fmt: skip
    torch.save(tensors, tmp_path / "adapter_model.bin")
    found = read_pickled(tmp_path / "adapter_model.bin")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) and found[name].dtype == tensors[name].dtype for name in found)
    assert not any(tensor.requires_grad for tensor in found.values())


def test_safetensors_win(theirs: tuple[nn.Module, Path]) -> None:
    model, folder = theirs
    save_file(peft.get_peft_model_state_dict(model), folder / "adapter_model.safetensors", {"format": "pt"})
    (folder / "adapter_model.bin").write_bytes(b"not even a zip")
    ours = tiny_models()["encoder"].build()
    tunesmith.attach(ours, folder)
    assert (answer(ours) - answer(model)).abs().max() <= 1e-6


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("place", ["value", "beside", "bare"])
def test_code_is_named_and_not_run(place: str, protocol: int, theirs: tuple[nn.Module, Path], tmp_path: Path) -> None:
    trace, weights = tmp_path / "ran", theirs[1] / "adapter_model.bin"
    evil = Malicious(trace)
    content = evil if place == "value" else {"lora_A": torch.ones(2), "evil": evil}
    if place == "bare":
        weights.write_bytes(pickle.dumps(content, protocol=protocol))
    else:
        torch.save(content, weights, pickle_protocol=protocol)
    with pytest.raises(SecurityError, match="bare pickle" if place == "bare" else r"system'.*nothing was run"):
        tunesmith.attach(tiny_models()["encoder"].build(), theirs[1])
    assert not trace.exists()
    torch.load(weights, weights_only=False) if place == "beside" else None
    assert trace.exists() == (place == "beside"), "the file is malicious indeed"


@pytest.mark.parametrize("content", [torch.ones(2), {"a": 3}, {"a": {"b": torch.ones(1)}}, {1: torch.ones(1)}, [1]])
def test_other_objects_are_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "adapter_model.bin")
    with pytest.raises(SecurityError, match="refused"):
        read_pickled(tmp_path / "adapter_model.bin")


def test_claims_beyond_the_file_are_refused(tmp_path: Path) -> None:
    """A view with stride zero, and a compressed zip, are short on disk and long in memory."""
    path = tmp_path / "adapter_model.bin"
    torch.save({"a": torch.ones(1).expand(1 << 40)}, path)
    with pytest.raises(SecurityError, match="more than the file is long"):
        read_pickled(path)
    torch.save({"a": torch.zeros(1 << 16)}, path)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "b", "w", zipfile.ZIP_DEFLATED) as packed:
        for member in archive.namelist():
            packed.writestr(member, archive.read(member))
    with pytest.raises(SecurityError, match="compressed"):
        read_pickled(tmp_path / "b")


def test_members_outside_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.bin", "w") as archive:
        archive.writestr("../data.pkl", pickle.dumps({}))
    with pytest.raises(SecurityError, match="which torch.save does not write"):
        read_pickled(tmp_path / "x.bin")


@pytest.mark.parametrize("keep", [0, 2, 100, 0.5, 0.9, -1])
def test_truncated(keep: float, theirs: tuple[nn.Module, Path]) -> None:
    path = theirs[1] / "adapter_model.bin"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else int(keep)])
    with pytest.raises(CheckpointError, match=r"adapter_model\.bin is damaged"):
        tunesmith.attach(tiny_models()["encoder"].build(), theirs[1])


def test_another_protocol_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "adapter_model.bin", pickle_protocol=4)
    with pytest.raises(SecurityError, match="STACK_GLOBAL"):
        read_pickled(tmp_path / "adapter_model.bin")


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("method.json", [1], "method.json is damaged: it must hold an object"),
        ("method.json", {"name": 3}, "'name' must be the name of a method"),
        ("adapter_config.json", {"r": "x"}, "holds what LORA cannot take"),
        ("adapter_config.json", {"modules_to_save": 3}, "holds what LORA cannot take"),
        ("adapter_config.json", {"rank_pattern": [1]}, "holds what LORA cannot take"),
    ],
)
def test_wrong_kinds_of_values_are_named(tmp_path: Path, file: str, change: Any, message: str) -> None:
    lora = Lora()
    save_delta(tmp_path, lora, lora.attach(open_seams(tiny_models()["encoder"].build())), "")
    config = json.loads((tmp_path / file).read_text())
    (tmp_path / file).write_text(json.dumps({**config, **change} if isinstance(change, dict) else change))
    if file != "method.json":
        (tmp_path / "method.json").unlink()
    with pytest.raises(CheckpointError, match=message):
        tunesmith.attach(tiny_models()["encoder"].build(), tmp_path)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    delta = tunesmith.attach(tiny_models()["encoder"].build(), "lora")
    with torch.no_grad():
        delta.parameters()[0][0, 0] = float("nan")
    save_delta(tmp_path, Lora(), delta, "")
    with pytest.raises(CheckpointError, match="holds numbers that are not finite"):
        tunesmith.attach(tiny_models()["encoder"].build(), tmp_path)
