"""Gradients by block: the norms of the parts make up the whole; a vanishing one does not break the picture."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.training.test_many import Rows, backbone, trial
from tunesmith.evaluation.plots import by_layer
from tunesmith.methods.adapter import Adapter
from tunesmith.methods.lora import Lora
from tunesmith.models import placing
from tunesmith.models.backbone import Backbone
from tunesmith.training import monitoring
from tunesmith.training.loop import Loop
from tunesmith.training.monitoring import Monitor, block_of, gradient_norms


def test_norms_by_block_are_sums_of_squares() -> None:
    names = ["embeddings.word.a", "encoder.layer.0.query.a", "encoder.layer.0.query.b", "encoder.layer.11.key.a"]
    named = [(name, nn.Parameter(torch.zeros(2, 3, dtype=torch.float64))) for name in names]
    for number, (_, one) in enumerate(named[:3], 1):
        one.grad = torch.full_like(one, float(number))
    found = gradient_norms(named)
    assert list(found) == ["others", "encoder.layer.0"]  # the last one has no gradient
    assert found == pytest.approx({"others": math.sqrt(6), "encoder.layer.0": math.sqrt(6 * (4 + 9))})
    assert block_of("decoder.block.2.layer.0.q") == "decoder.block.2"


class NoDoubles(TorchDispatchMode):
    """Stands for Apple's GPUs, which have no float64."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and found.dtype == torch.float64:
            raise TypeError("the MPS framework doesn't support float64")
        return found


def test_nothing_asks_a_device_for_a_type_that_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert placing.widest(torch.device("mps")) == torch.float32
    assert placing.widest(torch.device("cpu")) == placing.widest(torch.device("cuda", 1)) == torch.float64
    for place in (placing, monitoring):
        monkeypatch.setattr(place, "widest", lambda device: torch.float32)
    one, seen = nn.Parameter(torch.ones(3, 2)), Monitor()
    one.grad = torch.full_like(one, 2.0)
    with NoDoubles():
        assert gradient_norms([("a", one)]) == pytest.approx({"others": math.sqrt(24)})
        seen.activations("block", torch.ones(4, 2))
    assert placing.moved(torch.ones(2, dtype=torch.float64), torch.device("meta")).dtype == torch.float32


def test_the_history_has_them_and_they_are_drawn() -> None:
    one = trial(backbone(0.0), Lora(rank=2), "a", 0, epochs=2, clip_norm=1e-3)
    Loop([one]).fit(lambda *_: None)
    rows = [row["gradient norms"] for row in one.trained.history]
    assert len(rows) == 2 and "encoder.layer.0" in rows[0]
    assert all(sum(value**2 for value in row.values()) <= 1.0001e-6 for row in rows)  # after clipping
    assert "<svg" in by_layer({"epoch 1": {"a": 0.0, "b": 1.0}, "epoch 2": {"a": 2.0, "b": 0.5}})
    assert "<svg" in by_layer({"epoch 1": {"a": 0.0, "b": 0.0}})


def test_sizes_of_what_blocks_add_are_the_models_own_in_a_pass_of_several_too() -> None:
    def history(core: Backbone, rates: dict[str, float]) -> dict[str, list[dict[str, float]]]:
        every = {"batch_size": 64, "epochs": 2, "weight_decay": 0.0}
        found = [trial(core, Lora(rank=2), name, 0, learning_rate=rate, **every) for name, rate in rates.items()]
        Loop(found).fit(lambda *_: None)
        return {one.name: [row["activations"] for row in one.trained.history] for one in found}

    core = backbone(0.0, blocks=3)
    states: list[torch.Tensor] = []
    with torch.no_grad():
        for row in Rows(64).rows:
            given = core.model(torch.from_numpy(row)[None], output_hidden_states=True).hidden_states
            states.append(torch.stack([(b - a).square().sum() for a, b in pairwise(given)]))
    tokens = Rows(64).lengths.sum() * 16
    sizes = (torch.stack(states).sum(0) / tokens).sqrt().tolist()
    together = history(core, {"a": 1e-3, "b": 1e-2})
    alone = history(backbone(0.0, blocks=3), {"b": 1e-2})
    assert together["a"][0] == pytest.approx(
        {f"encoder.layer.{number}": size for number, size in enumerate(sizes)}, rel=1e-10
    )
    assert together["b"] == [pytest.approx(row, rel=1e-10) for row in alone["b"]]
    assert together["b"][1]["encoder.layer.1"] != pytest.approx(sizes[1], rel=1e-6)  # the delta has moved it


def test_zeros_inside_a_delta_are_counted() -> None:
    core = backbone(0.0)
    methods = {"a": Adapter(width=8, activation="gelu", active=0.25), "b": Adapter(width=8, activation="gelu")}
    found = [trial(core, method, name, 0, epochs=2) for name, method in methods.items()]
    Loop(found).fit(lambda *_: None)
    shares = [[row["zero activations"] for row in one.trained.history] for one in found]
    assert shares == [[0.75, 0.75], [0.0, 0.0]]
