"""Checkpoints: training that was broken off goes on to the same bits; damaged ones are passed over."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.test_many import backbone, trial
from tunesmith.core.errors import CheckpointError, TunesmithError
from tunesmith.core.registry import components
from tunesmith.methods.adalora import AdaLora
from tunesmith.methods.base import Method
from tunesmith.methods.bitfit import BitFit
from tunesmith.methods.full import Full
from tunesmith.methods.fusion import Fusion
from tunesmith.methods.head_only import HeadOnly
from tunesmith.methods.lora import Lora
from tunesmith.methods.p_tuning import PTuning
from tunesmith.methods.prefix import PrefixTuning
from tunesmith.training.checkpoints import FOLDER, Checkpoints, found, look, newest
from tunesmith.training.loop import Loop
from tunesmith.training.packing import packed, random_state, set_random_state, unpacked

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


OPTIMIZERS = {
    name: [(Lora(rank=2, layers=LAYERS), {"optimizer": name, "epochs": 2, "best": "last"})]
    for name in components("optimizers")
}
SCHEDULES = {name: [(BitFit(), {"schedule": name, "epochs": 4, "best": "last"})] for name in ("plateau", "one-cycle")}


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


@pytest.mark.parametrize("kind", [*KINDS, *OPTIMIZERS, *SCHEDULES])
def test_training_goes_on_to_the_same_bits(kind: str, tmp_path: Path) -> None:
    wanted, step = (KINDS | OPTIMIZERS | SCHEDULES)[kind], 11
    whole = loop_of(wanted)
    whole.fit(lambda *_: None)
    last = whole.steps
    if kind == "passes":
        assert len(whole.trials[0].passes(list(range(24)))) > 1
    broken_off(wanted, min(step, last - 2), tmp_path)
    assert_same(ends(whole), ends(gone_on(wanted, tmp_path)))


def test_a_damaged_checkpoint_is_passed_over_and_that_is_said(tmp_path: Path) -> None:
    wanted: Wanted = [(BitFit(), {})]
    whole = loop_of(wanted)
    whole.fit(lambda *_: None)
    broken_off(wanted, 11, tmp_path)
    newest_one, before = found(tmp_path / FOLDER)
    assert (newest_one.name, before.name) == ("step-00000010", "step-00000008")
    content = bytearray((newest_one / "tensors.safetensors").read_bytes())
    content[-3] ^= 1
    (newest_one / "tensors.safetensors").write_bytes(content)
    said: list[str] = []
    checkpoint = newest(tmp_path, said.append)
    assert checkpoint is not None and checkpoint.step == 8
    assert "step-00000010/tensors.safetensors is damaged: its hash is" in said[0] and "from step 8" in said[0]
    assert_same(ends(whole), ends(gone_on(wanted, tmp_path)))
    for name in ("state.json", "manifest.json"):
        broken_off(wanted, 11, tmp_path / name)
        (found(tmp_path / name / FOLDER)[0] / name).unlink()
        checkpoint = newest(tmp_path / name, said.append)
        assert checkpoint is not None and checkpoint.step == 8 and name in said[-1]
    for one in found(tmp_path / name / FOLDER):
        (one / "facts.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* can be used: .*facts.json is damaged.*--overwrite"):
        newest(tmp_path / name)
    assert look(tmp_path / name) is None and newest(tmp_path / "nowhere") is None


def test_the_last_two_stay_and_no_clock_decides(tmp_path: Path) -> None:
    broken_off([(BitFit(), {})], 9, tmp_path)
    folders = found(tmp_path / FOLDER)
    assert [one.name for one in folders] == ["step-00000008", "step-00000006"]
    assert sorted(one.name for one in (tmp_path / FOLDER).iterdir()) == ["step-00000006", "step-00000008"]
    for path in (*folders[0].iterdir(), folders[0]):
        os.utime(path, (1, 1))  # as if the clock had been moved back
    checkpoint = newest(tmp_path)
    assert checkpoint is not None and checkpoint.step == 8


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path) -> None:
    broken_off([(BitFit(), {})], 9, tmp_path)
    manifest = found(tmp_path / FOLDER)[0] / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "form": 2}))
    with pytest.raises(CheckpointError, match="another version of Tunesmith: its form is 2, this version reads 1"):
        newest(tmp_path)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_keeps_the_checkpoint_before(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = loop_of([(BitFit(), {})])

    def full(*_: Any) -> None:
        raise OSError(28, os.strerror(28))

    def told(done: int, note: str = "") -> None:
        if loop.steps == 5:
            monkeypatch.setattr(os, call, full)

    with pytest.raises(CheckpointError, match=r"step 6 .*No space left on device\. The checkpoint of step 4 is whole"):
        loop.fit(told, Checkpoints(tmp_path, {}, 2))
    monkeypatch.undo()
    assert [one.name for one in found(tmp_path / FOLDER)] == ["step-00000004", "step-00000002"]
    assert not [one for one in (tmp_path / FOLDER).iterdir() if one.name.startswith(".new")]


def test_a_folder_removed_while_training_is_made_again(tmp_path: Path) -> None:
    loop, said = loop_of([(BitFit(), {})]), list[str]()

    def told(done: int, note: str = "") -> None:
        if loop.steps == 5:
            shutil.rmtree(tmp_path / "run")

    loop.fit(told, Checkpoints(tmp_path / "run", {}, 2, said.append))
    assert len(said) == 1 and "was removed while training ran; it is made again" in said[0]
    checkpoint = newest(tmp_path / "run")
    assert checkpoint is not None and checkpoint.step == loop.steps


def test_checkpoints_are_due_every_so_many_steps_or_after_long_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    counted, timed = Checkpoints(Path("x"), {}, 3), Checkpoints(Path("x"), {})
    assert [step for step in range(1, 10) if counted.due(step, epoch_ended=False)] == [3, 6, 9]
    assert not timed.due(5, epoch_ended=True)
    now[0] = 111.0
    assert timed.due(5, epoch_ended=True) and not timed.due(5, epoch_ended=False)


def test_states_come_back_to_the_bit() -> None:
    state = {
        "float": [0.1, 1e-308, float("inf"), float("-inf"), np.float64(1 / 3)], "int": 2**70, "none": None,
        3: ("tuple", True), "*": {"kind": "*"}, "array": np.array([2**64 - 1, 1], dtype=np.uint64),
        "tensors": [torch.tensor(1.5, dtype=torch.bfloat16), torch.arange(3), torch.ones(2, 2)[:, 0]],
    }  # fmt: skip
    tensors: dict[str, Tensor] = {}
    plain = json.loads(json.dumps(packed(state, tensors), allow_nan=False))
    back = unpacked(plain, tensors)
    assert (back.pop("array") == state.pop("array")).all()
    assert_same(state, back)
    assert np.isnan(unpacked(packed(float("nan"), tensors), tensors))
    with pytest.raises(TypeError, match="not Path|not PosixPath"):
        packed({"path": Path("x")}, tensors)
    with pytest.raises(CheckpointError, match="kind 'pickle'"):
        unpacked({"*": "pickle"}, tensors)


def test_shared_streams_of_random_numbers_go_on() -> None:
    state = random_state()
    first = (random.random(), np.random.rand(), torch.rand(2))
    set_random_state(state)
    assert_same(first, (random.random(), np.random.rand(), torch.rand(2)))


# Guard --------------------------------------------------------------------------------------------------------------


def spoiled(loop: Loop, step: int, factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Multiply the losses of one step."""
    losses = loop.losses
    monkeypatch.setattr(
        loop, "losses", lambda work: [one * (factor if loop.steps == step else 1) for one in losses(work)]
    )


def test_a_loss_that_leaps_stops_and_the_best_state_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: Wanted = [(BitFit(), {"guard": {"spike": 3.0, "window": 4}, "epochs": 2})]
    loop = loop_of(wanted)
    spoiled(loop, 10, 20.0, monkeypatch)
    kept: list[Tensor] = []

    def told(done: int, note: str = "") -> None:
        if loop.steps == 8:
            best = loop.trials[0].ranking.best
            kept.extend(best.state if best is not None else [])

    loop.fit(told)
    trained = loop.trials[0].trained
    assert trained.diverged == 11 and trained.steps == 10 and trained.best_epoch == 1
    assert "more than 3 times the largest of the 4 steps before" in trained.reason
    assert "at step 11, which read line " in trained.reason and "of rows" in trained.reason
    assert_same(kept, [parameter.detach() for parameter in loop.trials[0].tuned.parameters()])
    free = loop_of([(BitFit(), {"epochs": 2})])
    spoiled(free, 10, 20.0, monkeypatch)
    free.fit(lambda *_: None)
    assert free.trials[0].trained.diverged == 0 and free.steps == 16


def test_before_the_first_epoch_ends_the_last_checkpoint_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: Wanted = [(BitFit(), {})]
    broken_off(wanted, 5, tmp_path / "other")
    checkpoint = newest(tmp_path / "other")
    assert checkpoint is not None and checkpoint.step == 4
    loop = loop_of(wanted)
    spoiled(loop, 5, float("nan"), monkeypatch)
    loop.fit(lambda *_: None, Checkpoints(tmp_path, {}, 2))
    trial = loop.trials[0]
    assert trial.trained.diverged == 6 and trial.trained.best_epoch == 0 and trial.trained.kept_step == 4
    assert_same(checkpoint.state["trials"]["t0"]["delta"], dict(trial.tuned.delta.state()))
    lonely = loop_of(wanted)
    spoiled(lonely, 5, float("nan"), monkeypatch)
    with pytest.raises(TunesmithError, match=r"the loss is nan at step 6, which read line \d+"):
        lonely.fit(lambda *_: None)


def test_gradients_that_are_no_numbers_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = loop_of([(BitFit(), {})])
    before = loop.trials[0].tuned.state()

    class Spoiled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad * float("nan")

    losses = loop.losses
    monkeypatch.setattr(loop, "losses", lambda work: [Spoiled.apply(one) for one in losses(work)])
    with pytest.raises(TunesmithError, match="the norm of the gradients is nan at step 1, which read line"):
        loop.fit(lambda *_: None)
    assert_same(before, loop.trials[0].tuned.state())


# Signals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_training_after_its_step_with_a_checkpoint(number: int, tmp_path: Path) -> None:
    loop, said = loop_of([(BitFit(), {})]), list[str]()
    before = signal.getsignal(number)

    def told(done: int, note: str = "") -> None:
        if loop.steps == 4:
            signal.raise_signal(number)

    loop.fit(told, Checkpoints(tmp_path, {}), said.append)
    assert loop.interrupted and loop.ended == (number == signal.SIGTERM) and loop.steps == 5
    assert loop.trials[0].trained.interrupted and "this step is finished first" in said[0]
    assert signal.getsignal(number) == before
    checkpoint = newest(tmp_path)
    assert checkpoint is not None and checkpoint.step == 5
    whole = loop_of([(BitFit(), {})])
    whole.fit(lambda *_: None)
    assert_same(ends(whole), ends(gone_on([(BitFit(), {})], tmp_path)))


def test_a_second_ctrl_c_leaves_at_once(tmp_path: Path) -> None:
    loop = loop_of([(BitFit(), {})])

    def told(done: int, note: str = "") -> None:
        if loop.steps == 4:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        loop.fit(told, Checkpoints(tmp_path, {}, 3), lambda _: None)
    checkpoint = newest(tmp_path)
    assert checkpoint is not None and checkpoint.step == 3
