"""Narrow products: off they change nothing, on they change little and only where weights are frozen."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn

from tunesmith.core.errors import RecipeError
from tunesmith.core.memory import resident_bytes
from tunesmith.methods.lora import Lora
from tunesmith.models import products
from tunesmith.models.language import LanguageModel
from tunesmith.models.layout import ragged
from tunesmith.models.products import (
    BFloat16,
    Int8,
    Narrow,
    chosen,
    frozen_product,
    mapped,
    narrow_named,
    narrow_products,
)


@pytest.mark.parametrize("shape", [(0, 8, 4), (3, 8, 4), (70, 33, 17)])
@pytest.mark.parametrize("bias", [False, True])
def test_products_equal_torchs(shape: tuple[int, int, int], bias: bool) -> None:
    torch.manual_seed(0)
    rows, wide, high = shape
    x, weight, own = torch.randn(rows, wide), torch.randn(high, wide), torch.randn(high) if bias else None
    wanted = nn.functional.linear(x.double(), weight.double(), None if own is None else own.double())
    assert torch.allclose(mapped(x, weight, own).double(), wanted, atol=1e-4)
    assert torch.allclose(mapped(x, weight.t().contiguous().t(), own).double(), wanted, atol=1e-4)
    for how in (BFloat16(), Int8()):
        for stored in (weight, weight.t().contiguous().t()):
            narrow = frozen_product(x, stored, own, how)
            assert narrow.dtype == torch.float32 and narrow.shape == wanted.shape
            assert not rows or (narrow.double() - wanted).abs().max() <= 0.02 * wide**0.5 * 3


def test_8_bits_by_hand() -> None:
    """Both directions, against the sums written out in whole numbers."""
    torch.manual_seed(0)
    x, weight, how = torch.randn(20, 6), torch.randn(5, 6), Int8()
    by_row = weight.abs().amax(1) / 127
    whole = (weight / by_row[:, None]).round().long()
    own = x.abs().amax(1, keepdim=True) / 127
    wanted = ((x / own).round().long() @ whole.t()) * own * by_row
    torch.testing.assert_close(how.product(x, weight), wanted, rtol=1e-5, atol=1e-6)
    dy = torch.randn(20, 5)
    scaled = dy * by_row
    own = scaled.abs().amax(1, keepdim=True) / 127
    wanted = ((scaled / own).round().long() @ whole) * own
    torch.testing.assert_close(how.product(dy, weight.t()), wanted, rtol=1e-5, atol=1e-6)
    assert len(how._kept) == 1, "one copy serves both directions"
    assert torch.equal(how.product(torch.zeros(20, 6), weight), torch.zeros(20, 5))
    assert torch.equal(how.product(x[:3], weight), mapped(x[:3], weight)), "few rows are not worth rounding"


CPU = torch.device("cpu")


def test_narrow_products_are_refused_where_they_are_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    with pytest.raises(RecipeError, match=r"training\.precision=int8 on cpu: .*VNNI"):
        narrow_named("int8", CPU)
    monkeypatch.setattr(products, "_is_fast", lambda device, dtype: False)
    with pytest.raises(RecipeError, match=r"training\.precision=bfloat16 on cpu: .*AVX-512"):
        narrow_named("bfloat16", CPU)
    with pytest.raises(RecipeError, match=r"training\.precision=float8 on cpu: it needs a GPU"):
        narrow_named("float8", CPU)
    assert narrow_named("float32", CPU) is None


def test_a_processor_without_the_instructions_multiplies_16_bits_by_torchs_own_product(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """oneDNN fails on such a processor instead of taking another kernel."""
    monkeypatch.setattr(products, "_is_fast", lambda device, dtype: dtype != torch.bfloat16)
    x, weight = torch.randn(40, 64).bfloat16(), torch.randn(600, 64).bfloat16()
    assert torch.equal(mapped(x, weight), x @ weight.t())


def test_float8_rounds_rows() -> None:
    x = torch.randn(5, 32) * torch.logspace(-6, 3, 5)[:, None]
    x[2] = 0.0
    rounded, scales = products.rows_in_float8(x)
    assert rounded.dtype == torch.float8_e4m3fn and scales.shape == (5, 1)
    error = (rounded.float() * scales - x).norm(dim=1) / x.norm(dim=1).clamp_min(1e-30)
    assert error.max() <= 2**-4  # three bits behind the point


@pytest.mark.parametrize(("how", "hidden_off", "gradient_off"), [(BFloat16(), 0.02, 0.05), (Int8(), 0.03, 0.1)])
def test_narrow_products_reach_every_frozen_map_but_the_output_map(
    how: Narrow, hidden_off: float, gradient_off: float
) -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48
    )
    model = LanguageModel(transformers.LlamaForCausalLM(config).eval())
    delta = Lora(rank=2, layers=("q_proj",)).attach(model.seams, "a")
    for parameter in delta.parameters():
        nn.init.normal_(parameter, std=0.1)
    batch = ragged([list(range(5, 45)), list(range(20, 40))])

    def run() -> tuple[torch.Tensor, list[torch.Tensor]]:
        hidden = model.hidden(batch)
        loss = model.loss(hidden, batch.ids, torch.full((len(batch.ids),), 0.02))
        return hidden.detach(), list(torch.autograd.grad(loss, delta.parameters()))

    exact, gradients = run()
    with narrow_products(how):
        narrow, found = run()
        logits = model.logits(exact)
    assert chosen() is None and torch.equal(run()[0], exact)
    off = float((narrow - exact).norm() / exact.norm())
    assert 1e-5 < off < hidden_off
    for ours, theirs in zip(found, gradients, strict=True):
        assert 0 < (ours - theirs).norm() <= gradient_off * theirs.norm()
    assert torch.equal(logits, model.logits(exact))


def test_both_directions_of_every_frozen_map_are_narrow() -> None:
    """Forward all of them; backward those whose input has a gradient: not q, k and v below the first delta."""
    calls: list[torch.Size] = []

    class Counting(Int8):
        def product(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            calls.append(weight.shape)
            return super().product(x, weight)

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48
    )
    for layers in (("q_proj",), "all-linear"):
        model = LanguageModel(transformers.LlamaForCausalLM(config).eval())
        delta = Lora(rank=2, layers=layers).attach(model.seams, "a")
        batch = ragged([list(range(5, 45)), list(range(20, 40))])
        for _ in range(2):  # maps that read the same tensor run together from the second pass on
            calls.clear()
            with narrow_products(Counting()):
                hidden, forward = model.hidden(batch), len(calls)
                torch.autograd.grad(hidden.square().sum(), delta.parameters())
            assert (forward, len(calls) - forward) == (14, 11)


def test_layers_without_a_delta_take_part() -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48
    )
    model = LanguageModel(transformers.LlamaForCausalLM(config).eval())
    x, down = torch.randn(1, 5, 48), model.seams.linear["model.layers.0.mlp.down_proj"]
    with narrow_products(BFloat16()):
        assert not torch.equal(down.module(x), nn.functional.linear(x, down.module.weight))  # type: ignore[arg-type]
    assert torch.allclose(down.module(x), nn.functional.linear(x, down.module.weight), atol=1e-6)  # type: ignore[arg-type]


def test_candidates_share_their_precision(recipe: dict[str, object]) -> None:
    import tunesmith

    candidates = [{"training.precision": "bfloat16"}, {"method.rank": 2}]
    with pytest.raises(RecipeError, match=r"training\.precision"):
        tunesmith.train({**recipe, "candidates": candidates})


def test_narrow_products_that_would_change_nothing_are_said(
    recipe: dict[str, object], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tunesmith
    from tunesmith.models import products

    monkeypatch.setattr(products, "_is_fast", lambda device, dtype: True)
    monkeypatch.setattr(products, "mapped", nn.functional.linear)  # whatever this processor is fast at
    training = {"epochs": 1, "batch_size": 8, "precision": "bfloat16"}
    given = {**recipe, "training": training}
    with pytest.raises(RecipeError, match=r"training\.precision: bfloat16 is for .* model\.dtype is float64"):
        tunesmith.train({**given, "model": {"name": recipe["model"], "dtype": "float64"}})
    said = "training.precision=bfloat16 changes nothing"
    tunesmith.train(given)
    assert said not in capsys.readouterr().err
    tunesmith.train({**given, "method": "full"}, overwrite=True)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="needs AVX-512 VNNI")
def test_a_recipe_trains_with_narrow_products(recipe: dict[str, object], precision: str) -> None:
    import tunesmith

    run = tunesmith.train({**recipe, "training": {"epochs": 2, "batch_size": 8, "precision": precision}})
    assert run.metrics["test"]["accuracy"]["value"] > 0.5


def test_products_come_in_few_heights() -> None:
    """oneDNN keeps a kernel per number of rows: ragged batches of ever new sizes filled the memory with them."""
    heights = {len(products._few_heights(torch.ones(rows, 2))) for rows in range(512, 1025)}
    assert len(heights) <= 33
    for rows in (1, 15, 16, 17, 100, 511, 513, 5000):
        x, weight = torch.randn(rows, 8), torch.randn(5, 8)
        assert len(products._few_heights(x)) <= max(rows + 15, rows * 17 / 16)
        found = products.mapped(x, weight)
        assert found.shape == (rows, 5) and torch.allclose(found, x @ weight.t(), atol=1e-5)
        assert products._few_heights(x)[rows:].count_nonzero() == 0


def test_ever_new_numbers_of_rows_take_no_memory() -> None:
    weight = torch.randn(768, 384)
    for rows in range(256, 512, 16):
        products.mapped(torch.randn(rows, 384), weight)
    before = resident_bytes()
    for rows in range(257, 512):
        products.mapped(torch.randn(rows, 384), weight)
    assert resident_bytes() - before < 24e6  # without few heights: about 100 MB


def test_a_precision_that_this_machine_lacks_is_refused_before_all_work(
    recipe: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tunesmith
    from tunesmith.runs import training

    monkeypatch.setattr(training, "open_family", lambda *_: pytest.fail("the model was opened"))
    model = {"name": recipe["model"], "device": "cpu"}
    with pytest.raises(RecipeError, match=r"training\.precision=float8 on cpu"):
        tunesmith.train({**recipe, "model": model, "training": {"precision": "float8"}})
