"""What every method must keep."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from tunesmith.core.errors import TunesmithError
from tunesmith.methods.base import Method
from tunesmith.methods.store import load_delta, save_delta
from tunesmith.models.delta import Delta
from tunesmith.models.seams import open_seams
from tunesmith.testing.tiny import TinyModel

_STEPS = 15


def check_method(kind: type[Method], tiny: TinyModel) -> None:
    """Check a method on one family of models.

    Args:
        kind: the method's class.
        tiny: the family.
    Raises:
        AssertionError: a promise is broken; the message says which.
    """
    _check_settings(kind)
    method, model, inputs = kind(**kind.example), tiny.build(), tiny.inputs()
    if not kind.needs <= tiny.has:
        _check_refusal(method, model)
        return
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    base = _output(model, inputs)

    delta = _attached(method, model)
    fresh = torch.allclose(_output(model, inputs), base, atol=1e-5)
    assert fresh == kind.neutral, "a fresh delta leaves the model's answer as it was exactly when `neutral` says so"
    _check_gradients(model, delta, inputs)
    if delta.parameters():
        _check_training(model, delta, inputs)
    tuned = _output(model, inputs)
    _check_rows(model, delta, inputs, base, tuned)
    _check_saving(method, tiny, model, delta, inputs)

    delta.detach()
    assert torch.equal(_output(model, inputs), base), "detach must restore the model's answer bit for bit"
    after = model.state_dict()
    assert after.keys() == before.keys(), "detach must restore the model's parameter names"
    assert all(torch.equal(after[name], before[name]) for name in before), "base weights must never change"
    assert method.can_merge == kind.mergeable, "the class must say whether its default merges"
    if method.can_merge:
        _check_merge(method, tiny, delta.state(), tuned)


def _check_settings(kind: type[Method]) -> None:
    method = kind()
    for name, field in kind.model_fields.items():
        assert field.description, f"setting '{name}' needs a sentence of help"
        try:
            setattr(method, name, getattr(method, name))
        except ValidationError:
            continue
        raise AssertionError("settings must be frozen")
    assert kind.name and kind.__doc__, "a method needs a name and a sentence"


def _check_refusal(method: Method, model: nn.Module) -> None:
    try:
        method.attach(open_seams(model))
    except TunesmithError as error:
        assert type(model).__name__ in str(error), f"the refusal must name the model: {error}"
        return
    raise AssertionError(f"'{method.name}' needs {sorted(method.needs)} and must refuse a model without")


def _attached(method: Method, model: nn.Module) -> Delta:
    torch.manual_seed(0)
    return method.attach(open_seams(model))


def _output(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        hidden: Tensor = model(**inputs).last_hidden_state
    return hidden


def _loss(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Ask for a random direction: a fixed mean or variance could not be reached behind a layer norm."""
    hidden: Tensor = model(**inputs).last_hidden_state
    wanted = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(2))
    return (hidden - wanted).pow(2).mean()


def _check_gradients(model: nn.Module, delta: Delta, inputs: dict[str, Tensor]) -> None:
    base = {id(parameter) for parameter in model.parameters()} - {id(p) for p in delta.parameters()}
    if delta.parameters():
        _loss(model, inputs).backward()
    reached = {name for name, parameter in delta.named_parameters() if parameter.grad is not None}
    unused = {name for name, _ in delta.named_parameters()} - reached
    # The loss reads the hidden states; a pooler behind them is the one part it cannot reach.
    assert all("pooler" in name for name in unused), f"no gradient reaches {unused}"
    leaked = [name for name, p in model.named_parameters() if id(p) in base and p.grad is not None]
    assert not leaked, f"frozen parameters got gradients: {leaked[:3]}"
    for parameter in delta.parameters():
        parameter.grad = None


def _check_training(model: nn.Module, delta: Delta, inputs: dict[str, Tensor]) -> None:
    optimizer = torch.optim.Adam(delta.parameters(), lr=1e-2)
    first = _loss(model, inputs).item()
    for _ in range(_STEPS):
        optimizer.zero_grad()
        _loss(model, inputs).backward()
        optimizer.step()
    assert _loss(model, inputs).item() < first, f"the loss must fall in {_STEPS} steps"


def _check_rows(model: nn.Module, delta: Delta, inputs: dict[str, Tensor], base: Tensor, tuned: Tensor) -> None:
    """Rows without a delta answer as the base, rows with it as tuned, in one pass."""
    with delta.seams.route([None, delta.name]):
        mixed = _output(model, inputs)
    assert torch.allclose(mixed[0], base[0], atol=1e-5), "a row routed to the base must answer as the base"
    assert torch.allclose(mixed[1], tuned[1], atol=1e-5), "a row routed to the delta must answer as with it"


def _check_saving(method: Method, tiny: TinyModel, model: nn.Module, delta: Delta, inputs: dict[str, Tensor]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        save_delta(Path(folder), method, delta, "tiny")
        fresh = tiny.build()
        loaded, _ = load_delta(Path(folder), open_seams(fresh))
        assert loaded == method, "saving must keep the settings"
        assert torch.equal(_output(fresh, inputs), _output(model, inputs)), "a loaded delta must answer alike"


def _check_merge(method: Method, tiny: TinyModel, state: dict[str, Tensor], tuned: Tensor) -> None:
    model = tiny.build()
    delta = _attached(method, model)
    delta.load(state)
    merged = delta.merge()
    assert torch.allclose(_output(merged, tiny.inputs()), tuned, atol=2e-5), "the merged model must answer alike"
