"""Methods are built as classes of `tunesmith.methods`, without saying which file they are in."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import peft
import pytest
import torch
from torch import nn

import tunesmith
from tunesmith.core.errors import CheckpointError
from tunesmith.core.registry import components
from tunesmith.methods.lora import Lora
from tunesmith.models.delta import Delta
from tunesmith.models.seams import open_seams
from tunesmith.testing import tiny_models


def test_every_method_is_found_by_its_classs_name() -> None:
    for own in components("methods").values():
        assert getattr(tunesmith.methods, own.__name__) is own


def test_a_method_object_is_attached() -> None:
    from tunesmith.methods import Lora

    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    delta = tunesmith.attach(model, Lora(rank=3, layers="all-linear"))
    assert {len(own) for path, own in delta.named_parameters() if "lora_A" in path} == {3}
    assert model(torch.zeros(1, 8)).shape == (1, 2)


def test_a_name_that_is_none_says_which_there_are() -> None:
    with pytest.raises(AttributeError, match="no method's class is called 'Lorra'. There are: .*Lora"):
        _ = tunesmith.methods.Lorra
    with pytest.raises(AttributeError, match="no attribute 'lorra'"):
        _ = tunesmith.methods.lorra


def test_the_package_is_there_after_one_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tunesmith, "methods", raising=False)  # as where nothing else was imported
    assert tunesmith.methods.Lora(rank=8).rank == 8


def drawn(delta: Delta) -> Delta:
    for parameter in delta.parameters():
        nn.init.normal_(parameter, std=0.1)
    return delta


@pytest.mark.parametrize("name", ["lora", "adalora", "ia3", "prefix", "prompt-tuning", "bitfit", "adapter"])
def test_a_saved_delta_is_attached_to_a_fresh_model(name: str, tmp_path: Path) -> None:
    tiny = tiny_models()["encoder"]
    model, fresh = tiny.build(), tiny.build()
    drawn(tunesmith.attach(model, name)).save(tmp_path / "delta")
    again = tunesmith.attach(fresh, tmp_path / "delta")
    with torch.no_grad():
        wanted, found = (one(**tiny.inputs()).last_hidden_state for one in (model, fresh))
    assert torch.equal(wanted, found)
    again.save(tmp_path / "again")
    names = {path.name for path in (tmp_path / "delta").iterdir()}
    assert {path.name for path in (tmp_path / "again").iterdir()} == names >= {"adapter_config.json"}


def test_peft_loads_what_was_saved(tmp_path: Path) -> None:
    tiny = tiny_models()["encoder"]
    model, theirs = tiny.build(), tiny.build()
    drawn(tunesmith.attach(model, Lora(rank=3))).save(str(tmp_path))
    wrapped = peft.PeftModel.from_pretrained(theirs, str(tmp_path)).eval()
    with torch.no_grad():
        wanted, found = (one(**tiny.inputs()).last_hidden_state for one in (model, wrapped))
    assert torch.allclose(wanted, found, atol=1e-6)


def test_a_copied_models_delta_saves_its_own_numbers(tmp_path: Path) -> None:
    tiny = tiny_models()["encoder"]
    model = tiny.build()
    drawn(tunesmith.attach(model, "lora"))
    copy = deepcopy(model)
    drawn(open_seams(copy).deltas["default"]).save(tmp_path)
    again = tiny.build()
    tunesmith.attach(again, tmp_path)
    with torch.no_grad():
        wanted, found, other = (one(**tiny.inputs()).last_hidden_state for one in (copy, again, model))
    assert torch.equal(wanted, found) and not torch.equal(wanted, other)


def test_what_cannot_be_saved_says_why(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(CheckpointError, match="does not know its method"):
        Lora(rank=2).attach(open_seams(model), "a").save(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="is a file"):
        tunesmith.attach(model, "lora", name="b").save(tmp_path / "file")
