"""Checkpoints: training that was broken off goes on to the same bits; damaged ones are passed over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.test_many import backbone, trial
from tunesmith.methods.adalora import AdaLora
from tunesmith.methods.base import Method
from tunesmith.methods.bitfit import BitFit
from tunesmith.methods.full import Full
from tunesmith.methods.fusion import Fusion
from tunesmith.methods.head_only import HeadOnly
from tunesmith.methods.lora import Lora
from tunesmith.methods.p_tuning import PTuning
from tunesmith.methods.prefix import PrefixTuning
from tunesmith.training.checkpoints import Checkpoints, newest
from tunesmith.training.loop import Loop
from tunesmith.training.packing import set_random_state

LAYERS = ("query", "value")
ADALORA = {"layers": LAYERS, "initial_rank": 4, "target_rank": 1, "initial_fraction": 0.1, "final_fraction": 0.1}
Wanted = list[tuple[Method, dict[str, Any]]]

KINDS: dict[str, Wanted] = {
    "lora": [(Lora(rank=2, dropout=0.2), {})],
    "passes": [(Lora(rank=2), {"tokens_per_pass": 60, "batch_size": 24, "clip_norm": 0.1})],
    "memory": [(Lora(rank=2), {"batch_size": 24})],
    "no clipping": [(Lora(rank=2), {"clip_norm": None, "schedule": "linear", "weight_decay": 0.1})],
    "adalora": [(AdaLora(**ADALORA), {"best": "last", "epochs": 4})],
    "fusion": [(Fusion(members=({"name": "adalora", **ADALORA}, {"name": "bitfit"})), {"best": "last", "epochs": 4})],
    "full": [(Full(), {})],
    "head": [(HeadOnly(), {})],
    "prefix": [(PrefixTuning(length=3), {})],
    "p-tuning": [(PTuning(length=3), {})],
    "many": [(Lora(rank=2), {}), (BitFit(), {"batch_size": 11}), (Lora(rank=3, dropout=0.3), {"epochs": 1}),
             (PrefixTuning(length=3), {"batch_size": 64})],
}  # fmt: skip


class Killed(Exception):
    """Stands for a process that is gone."""


def loop_of(wanted: Wanted, dropout: float = 0.1) -> Loop:
    core = backbone(dropout)
    torch.manual_seed(9)
    trials = [
        trial(core, method, f"t{number}", number, **{"epochs": 3, **settings})
        for number, (method, settings) in enumerate(wanted)
    ]
    return Loop(trials)


def bar(step: int | None, loop: Loop) -> Callable[..., None]:
    """Break off before a step counts as made, in the midst of things."""

    def told(done: int, note: str = "") -> None:
        if step is not None and loop.steps == step:
            raise Killed

    return told


def ends(loop: Loop) -> dict[str, Any]:
    """All that training leaves behind."""
    return {
        one.name: {
            "parameters": [parameter.detach().clone() for parameter in one.tuned.parameters()],
            "trained": {key: value for key, value in vars(one.trained).items() if key != "seconds"},
            "key": one.key,
        }
        for one in loop.trials
    }


def assert_same(first: Any, second: Any) -> None:
    if isinstance(first, Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        assert first == second


def broken_off(wanted: Wanted, step: int, folder: Path, every: int = 2) -> None:
    loop = loop_of(wanted)
    with pytest.raises(Killed):
        loop.fit(bar(step, loop), Checkpoints(folder, {"who": "test"}, every))


def gone_on(wanted: Wanted, folder: Path) -> Loop:
    loop = loop_of(wanted)
    checkpoint = newest(folder)
    assert checkpoint is not None
    loop.resume(checkpoint)
    np.random.seed(3)  # what came before must not matter
    torch.manual_seed(3)
    set_random_state(checkpoint.state["random"])
    opened = Checkpoints(folder, {"who": "test"}, 2)
    opened.begin(checkpoint)
    loop.fit(lambda *_: None, opened)
    return loop


@pytest.mark.parametrize("step", [7, 16])
@pytest.mark.parametrize("kind", list(KINDS))
def test_training_goes_on_to_the_same_bits(kind: str, step: int, tmp_path: Path) -> None:
    wanted = KINDS[kind]
    whole = loop_of(wanted)
    whole.fit(lambda *_: None)
    last = whole.steps
    if kind == "passes":
        assert len(whole.trials[0].passes(list(range(24)))) > 1
    broken_off(wanted, min(step, last - 2), tmp_path)
    assert_same(ends(whole), ends(gone_on(wanted, tmp_path)))
