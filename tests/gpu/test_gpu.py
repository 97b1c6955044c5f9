"""What is promised holds on a GPU too."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import tunesmith
from tests.models.test_ragged import BOUND, FAMILIES, backbone_of, check_ragged_equals_padded, relative
from tests.models.test_rows_attention import LAYOUTS, RULES, by_hand, drawn
from tunesmith.methods.lora import Lora
from tunesmith.models import compiling, products
from tunesmith.models.backbone import pool
from tunesmith.models.language import LanguageModel
from tunesmith.models.layout import RaggedBatch, ragged
from tunesmith.models.low_rank import narrowed, one_low_rank
from tunesmith.models.ragged_attention import Rule
from tunesmith.models.rows_attention import attend_rows, takes_rows
from tunesmith.training.loop import Loop

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS:UserWarning"),  # PEFT's backward pass begins a thread
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch's compiler, as its parts are loaded
]

GPU = torch.device("cuda")


def test_torch_compiles_here() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiling.has_compiler()


@pytest.mark.parametrize("family", FAMILIES)
def test_ragged_equals_padded_in_float64(family: str) -> None:
    backbone = backbone_of(FAMILIES[family](), "cuda")
    assert backbone.proof.fast, backbone.proof.reason
    check_ragged_equals_padded(backbone, BOUND[family])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"causal={rule.causal} window={rule.window}")
@pytest.mark.parametrize("case", LAYOUTS)
def test_rows_in_one_kernel(case: str, rule: Rule) -> None:
    """The kernel's error against float64 is at most the plain formula's in the same type."""
    layout, prefixes = LAYOUTS[case]
    flat, given, wanted = drawn(layout, prefixes, torch.bfloat16, "cuda", 16)
    assert takes_rows(flat[0], flat[2], rule)

    def results(way: Any, dtype: torch.dtype) -> list[Tensor]:
        own = [part.detach().to(dtype).requires_grad_() for part in flat]
        before = {
            name: tuple(part.detach().to(dtype).requires_grad_() for part in pair) for name, pair in given.items()
        }
        inputs = [*own, *(part for pair in before.values() for part in pair)]
        out = way(own, before)
        return [out.detach(), *torch.autograd.grad(out, inputs, wanted.to(dtype))]

    truth = results(lambda own, before: by_hand(own, before, layout, rule), torch.float64)
    plain = results(lambda own, before: by_hand(own, before, layout, rule), torch.bfloat16)
    ours = results(lambda own, before: attend_rows(*own, layout, rule, before), torch.bfloat16)
    for one, other, true in zip(ours, plain, truth, strict=True):
        assert (one.double() - true).norm() <= 1.1 * (other.double() - true).norm() + 4e-3 * true.norm()


def writer(dtype: torch.dtype, **more: Any) -> LanguageModel:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=512, hidden_size=256, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=512, pad_token_id=0, **more,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).to(dtype).eval()
    return LanguageModel(model.to(GPU))


def rows_of(change: int | None = None, begin: int = 0) -> RaggedBatch:
    draw = torch.Generator().manual_seed(1)
    lengths = (40, 64, 64, 17, 100, 33)
    rows = [torch.randint(10, 512, (length,), generator=draw) for length in lengths]
    common = torch.randint(10, 512, (begin,), generator=draw)
    if change is not None:
        rows[change] = (rows[change] - 10 + 7) % 502 + 10
    rows = [torch.cat([common, row]) for row in rows]
    return ragged(rows, learned=[torch.arange(len(row)) > len(row) // 2 for row in rows])


def step_of(model: LanguageModel, delta: Any, batch: RaggedBatch) -> list[Tensor]:
    batch = batch.to(GPU)
    hidden = model.before_learned(batch)
    weights = torch.full((len(batch.targets),), 1 / len(batch.targets), device=GPU)
    loss = model.loss(hidden, batch.targets, weights, 0.0, delta.parameters())
    return [loss.detach(), *torch.autograd.grad(loss, delta.parameters())]


def attached(model: LanguageModel) -> Any:
    delta = tunesmith.attach(model.model, Lora(rank=8), "a")
    torch.manual_seed(2)
    for parameter in delta.parameters():
        parameter.data.copy_((torch.randn(parameter.shape) * 0.05).bfloat16())
    return delta


def peft_step(model: LanguageModel, delta: Any, batch: RaggedBatch, folder: Path) -> list[Tensor]:
    """The same step by PEFT in autocast, padded, as transformers' Trainer runs it."""
    import peft

    delta.save(folder)
    torch.manual_seed(0)
    base = transformers.LlamaForCausalLM(model.model.config).to(torch.bfloat16)
    base.set_attn_implementation("sdpa")
    theirs = peft.PeftModel.from_pretrained(base, str(folder), is_trainable=True).eval().to(GPU)
    lengths = batch.layout.lengths
    mask = batch.layout.padded_mask().to(GPU)
    ids, labels = torch.zeros(mask.shape, dtype=torch.int64, device=GPU), torch.full(mask.shape, -100, device=GPU)
    ids[mask] = batch.ids.to(GPU)
    labels[mask] = torch.where(batch.learned.to(GPU), batch.ids.to(GPU), -100)
    assert len(lengths) == len(ids)
    with torch.autocast("cuda", torch.bfloat16):
        logits = theirs(input_ids=ids, attention_mask=mask.long()).logits.float()
    loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    loss.backward()
    grads = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    by_name = {name.replace("base_model.model.", "").replace(".default", ""): grad for name, grad in grads.items()}
    return [loss.detach(), *(by_name[_peft_name(name)] for name, _ in delta.named_parameters())]


def _peft_name(name: str) -> str:
    return name


@pytest.mark.parametrize("begin", [0, 64], ids=["own beginnings", "a common beginning"])
def test_a_step_in_bfloat16_is_as_near_to_the_truth_as_pefts(begin: int, tmp_path: Path) -> None:
    half = writer(torch.bfloat16)
    delta = attached(half)
    ours = step_of(half, delta, rows_of(begin=begin))
    exact = writer(torch.float32)
    exact.model.load_state_dict({k: v.float() for k, v in half.model.state_dict().items()}, strict=False)
    truth_model = LanguageModel(exact.model.double())
    twin = attached(truth_model)
    truth = step_of(truth_model, twin, rows_of(begin=begin))
    theirs = peft_step(half, delta, rows_of(begin=begin), tmp_path)

    def off(found: list[Tensor]) -> list[float]:
        return [((one.double() - true).norm() / true.norm()).item() for one, true in zip(found, truth, strict=True)]

    assert sum(off(ours)) <= 1.1 * sum(off(theirs))


def test_equal_steps_give_equal_bits_and_rows_do_not_touch() -> None:
    model = writer(torch.bfloat16)
    delta = attached(model)
    first, again = (step_of(model, delta, rows_of()) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    grads = []
    for change in (None, 3):
        batch = rows_of(change).to(GPU)
        others = (batch.index != 3).nonzero()[:, 0]
        pooled = pool(model.hidden(batch), batch.layout, "mean")[others]
        grads.append(torch.autograd.grad(pooled.float().pow(2).sum(), delta.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))


def test_a_common_beginning_runs_once_and_gives_the_same() -> None:
    model = writer(torch.float64)
    delta = attached(model)
    shared = step_of(model, delta, rows_of(begin=64))
    model._shares = False
    for one, other in zip(shared, step_of(model, delta, rows_of(begin=64)), strict=True):
        assert relative(one, other) < 1e-6  # norms cast to float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_fast_forms_prove_themselves(dtype: torch.dtype) -> None:
    model = writer(dtype)
    assert model.proof.fast and model._shares, model.proof.reason


def test_products_in_float8() -> None:
    torch.manual_seed(0)
    how = products.narrow_named("float8", GPU)
    assert how is not None
    x, weight = torch.randn(100, 64, device=GPU).bfloat16(), torch.randn(96, 64, device=GPU).bfloat16()
    for a, w in ((x, weight), (torch.randn(100, 96, device=GPU).bfloat16(), weight.t())):
        found, true = how.product(a, w), a.double() @ w.double().t()
        assert found.dtype == a.dtype and (found.double() - true).norm() <= 0.05 * true.norm()


@pytest.mark.parametrize("tokens", range(96, 104))
def test_low_rank_products_of_any_number_of_tokens(tokens: int) -> None:
    """Rows that begin at multiples of 16 bytes cost no accuracy: the error is at most the plain formula's."""
    draw = torch.Generator().manual_seed(tokens)
    weight, down, up, x, dy = (
        torch.randn(size, generator=draw, dtype=torch.float64).bfloat16().to(GPU)
        for size in ((96, 64), (8, 64), (96, 8), (tokens, 64), (tokens, 96))
    )
    assert narrowed(down, x).stride() == (-(-tokens // 8) * 8, 1)

    def results(way: Any, dtype: torch.dtype) -> list[Tensor]:
        inputs = [one.detach().to(dtype).requires_grad_() for one in (x, down, up)]
        y = way(*inputs, weight.to(dtype))
        return [y.detach(), *torch.autograd.grad(y, inputs, dy.to(dtype))]

    def plain(x: Tensor, down: Tensor, up: Tensor, weight: Tensor) -> Tensor:
        return x @ weight.t() + 0.5 * (x @ down.t()) @ up.t()

    truth, other = results(plain, torch.float64), results(plain, torch.bfloat16)
    ours = results(lambda x, down, up, weight: one_low_rank(x, weight, None, down, up, 0.5), torch.bfloat16)
    for one, two, true in zip(ours, other, truth, strict=True):
        assert (one.double() - true).norm() <= 1.1 * (two.double() - true).norm()


def test_rows_sent_early_and_losses_read_late_change_no_bit(
    recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = {**recipe, "model": {"name": recipe["model"], "device": "cuda"}}
    base["training"] = {**base["training"], "epochs": 2, "dropout": 0.2}
    folder = Path(recipe["output"])
    early = tunesmith.train({**base, "output": str(folder / "early")})
    monkeypatch.setattr(Loop, "_runs_ahead", lambda self, work: False)
    late = tunesmith.train({**base, "output": str(folder / "late")})
    assert [row["train loss"] for row in history_of(early)] == [row["train loss"] for row in history_of(late)]
    deltas = [(run.folder / "delta" / "adapter_model.safetensors").read_bytes() for run in (early, late)]
    assert deltas[0] == deltas[1]


def test_candidates_end_where_their_own_runs_end(recipe: dict[str, Any]) -> None:
    """Dropout, attention's too, is drawn from each candidate's own stream."""
    base = {**recipe, "model": {"name": recipe["model"], "device": "cuda", "dtype": "float64"}}
    base["training"] = {**base["training"], "epochs": 2, "dropout": 0.2, "best": "last"}
    folder = Path(recipe["output"])
    candidates = [{"training.learning_rate": 1e-3}, {"training.learning_rate": 4e-3}]
    both = tunesmith.train({**base, "candidates": candidates, "output": str(folder / "both")})
    ends = {}
    for number, candidate in enumerate(candidates):
        own = {**base["training"], "learning_rate": candidate["training.learning_rate"]}
        ends[number] = tunesmith.train({**base, "training": own, "output": str(folder / f"own{number}")})
    losses = [history_of(run)[-1]["train loss"] for run in ends.values()]
    found = [one["history"][-1]["train loss"] for one in both.summary["candidates"]]
    assert found == pytest.approx(losses, rel=1e-8)


def test_a_run_on_a_gpu_repeats_itself_and_answers_on_a_cpu(
    recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, found = Path(recipe["output"]), []
    for name in ("one", "two"):
        model = {"name": recipe["model"], "device": "cuda"}
        found.append(tunesmith.train({**recipe, "model": model, "output": str(folder / name)}))
    first, second = (json.loads((run.folder / "metrics.json").read_text())["metrics"]["test"] for run in found)
    assert first == second
    deltas = [(run.folder / "delta" / "adapter_model.safetensors").read_bytes() for run in found]
    assert deltas[0] == deltas[1]
    texts = ["hello there", "see you tomorrow", "many thanks"]
    on_gpu = found[0].predict(texts)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_cpu = tunesmith.Run.load(found[0].folder).predict(texts)
    for one, other in zip(on_gpu, on_cpu, strict=True):
        assert one.label == other.label and one.probability == pytest.approx(other.probability, abs=1e-4)


def history_of(run: tunesmith.Run) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run.folder / "history.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("precision", ["float32", "float8"])
def test_a_model_in_bfloat16_learns_to_answer(tiny_writer: Path, tmp_path: Path, precision: str) -> None:
    rows = tmp_path / "rows.jsonl"
    questions = [{"prompt": f"what is {n} ?", "completion": f"it is {n}"} for n in range(20)]
    rows.write_text("\n".join(map(json.dumps, questions)))
    run = tunesmith.train(
        {
            "task": {"name": "instruction-tuning", "answered_rows": 4, "samples": 1},
            "model": {"name": str(tiny_writer), "device": "cuda", "dtype": "bfloat16"},
            "data": {"train": str(rows), "validation": 0.2},
            "method": {"name": "lora", "rank": 4},
            "training": {"epochs": 3, "batch_size": 8, "precision": precision},
            "output": str(tmp_path / "run"),
        }
    )
    losses = [row["train loss"] for row in history_of(run)]
    assert losses[-1] < losses[0]
    assert len(run.generate(["what is 3 ?", "what is 4 ?"])) == 2
