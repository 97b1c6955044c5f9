"""Methods are built as classes of `tunesmith.methods`, without saying which file they are in."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

import tunesmith
from tunesmith.core.registry import components


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


def test_the_package_is_there_after_one_import() -> None:
    code = "import tunesmith; print(tunesmith.methods.Lora(rank=8).rank)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "8\n"
