"""Attention by a kernel that takes rows of any length: what each row is shown, with the kernel written out."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.test_ragged import relative
from tunesmith.models import rows_attention
from tunesmith.models.layout import Layout
from tunesmith.models.ragged_attention import Rule
from tunesmith.models.rows_attention import attend_rows, takes_rows


def formula(
    q: Tensor, k: Tensor, v: Tensor, rows: Tensor, keys: Tensor, *rest: Any, scale: float, **window: int
) -> Tensor:
    """Attend row by row; queries stand at the end of their keys."""
    *_, causal, _ = rest
    out = []
    for row in range(len(rows) - 1):
        own, seen = slice(rows[row], rows[row + 1]), slice(keys[row], keys[row + 1])
        kk, vv = (part[seen].repeat_interleave(q.shape[1] // k.shape[1], 1) for part in (k, v))
        scores = torch.einsum("thd,shd->hts", q[own], kk) * scale
        places = torch.arange(scores.shape[1]) + scores.shape[2] - scores.shape[1]
        distance = (places[:, None] - torch.arange(scores.shape[2])[None]).to(scores.device)
        hidden = distance < 0 if causal else torch.zeros_like(distance, dtype=torch.bool)
        if window:
            hidden = hidden | (distance > window["window_size_left"]) | (-distance > window["window_size_right"])
        out.append(torch.einsum("hts,shd->thd", scores.masked_fill(hidden, float("-inf")).softmax(-1), vv))
    return torch.cat(out)


@pytest.fixture
def written_out(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def forward(q: Tensor, k: Tensor, v: Tensor, *bounds: Any, **settings: Any) -> tuple[Tensor, ...]:
        return formula(q, k, v, *bounds, **settings), q.new_zeros(1), q.new_zeros(1), q.new_zeros(1), q.new_zeros(1)

    def backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, logs: Tensor, *rest: Any, **settings: Any
                 ) -> tuple[Tensor, ...]:  # fmt: skip
        with torch.enable_grad():
            parts = [part.detach().requires_grad_() for part in (q, k, v)]
            found = formula(*parts, *rest[:6], False, **settings)
        return torch.autograd.grad(found, parts, grad)

    monkeypatch.setattr(rows_attention, "_attend", forward)
    monkeypatch.setattr(rows_attention, "_attend_back", backward)
    yield


RULES = [Rule(False, None, 0.7, 0.0), Rule(True, None, 0.7, 0.0), Rule(False, 3, 0.7, 0.0), Rule(True, 3, 0.7, 0.0)]
LAYOUTS = {
    "rows alone": (Layout((2, 3, 5, 5)), {}),
    "a prefix for all": (Layout((2, 3, 5, 5)), {None: 3}),
    "a row that others see": (Layout((4, 2, 3, 5), leads=(0,)), {}),
    "two deltas, one with a prefix": (Layout((2, 3, 5, 5), ("a", "a", "b", "b")), {"b": 3}),
    "two deltas, one with a row that others see": (Layout((4, 3, 5, 5), ("a", "a", "b", "b"), (0,)), {"b": 2}),
}


def drawn(layout: Layout, prefixes: dict[str | None, int], dtype: torch.dtype, device: str, width: int) -> Any:
    draw = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=draw).to(device, dtype).requires_grad_()

    flat = [random(layout.tokens, heads, width) for heads in (6, 2, 2)]
    given = {name: (random(2, size, width), random(2, size, width)) for name, size in prefixes.items()}
    return flat, given, random(layout.tokens, 6, width).detach()


def by_hand(flat: list[Tensor], given: dict[Any, Any], layout: Layout, rule: Rule) -> Tensor:
    """Attend row by row, each with what stands before it put there."""
    names, begins = layout.names or (None,) * layout.rows, layout.starts
    leads = {names[row]: row for row in layout.leads}
    window = {} if rule.window is None else {"window_size_left": rule.window - 1, "window_size_right": rule.window - 1}
    out = []
    for row, name in enumerate(names):
        q, k, v = (part[begins[row] : begins[row + 1]] for part in flat)
        if name in leads and leads[name] != row:
            lead = slice(begins[leads[name]], begins[leads[name] + 1])
            k, v = (torch.cat([part[lead], own]) for part, own in zip(flat[1:], (k, v), strict=True))
        elif name in given:
            k, v = (torch.cat([part.transpose(0, 1), own]) for part, own in zip(given[name], (k, v), strict=True))
        bounds = torch.tensor([0, len(q)]), torch.tensor([0, len(k)]), len(q), len(k)
        out.append(formula(q, k, v, *bounds, 0.0, rule.causal, False, scale=rule.scale, **window))
    return torch.cat(out)


@pytest.mark.usefixtures("written_out")
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"causal={rule.causal} window={rule.window}")
@pytest.mark.parametrize("case", LAYOUTS)
def test_every_row_sees_what_it_should(case: str, rule: Rule) -> None:
    layout, prefixes = LAYOUTS[case]
    flat, given, wanted = drawn(layout, prefixes, torch.float64, "cpu", 4)
    inputs = [*flat, *(part for pair in given.values() for part in pair)]
    ours, theirs = attend_rows(*flat, layout, rule, given), by_hand(flat, given, layout, rule)
    assert relative(ours, theirs) < 1e-14
    pairs = zip(*(torch.autograd.grad(found, inputs, wanted) for found in (ours, theirs)), strict=True)
    assert all(relative(first, second) < 1e-13 for first, second in pairs)


def test_the_kernel_is_for_gpus() -> None:
    q = torch.randn(3, 2, 8, dtype=torch.bfloat16)
    assert not takes_rows(q, q, RULES[0])
