"""A language model's head runs at chosen positions only, and gives what the whole model gives."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from typing import Any

import pytest
import torch
import transformers
from torch import nn

import tunesmith.models.language as language
from tunesmith.core.errors import CompatibilityError
from tunesmith.methods.full import Full
from tunesmith.methods.lora import Lora
from tunesmith.models.language import LanguageModel
from tunesmith.models.layout import ragged
from tunesmith.models.sharing import share_prompt

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 96}
ENDS = {"bos_token_id": 1, "eos_token_id": 2}
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(num_key_value_heads=2, pad_token_id=0, **ENDS, **SMALL),
    "tied": lambda: transformers.LlamaConfig(num_key_value_heads=2, tie_word_embeddings=True, **ENDS, **SMALL),
    "gpt2": lambda: transformers.GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=64, **ENDS),
    "scaled logits": lambda: transformers.GraniteConfig(num_key_value_heads=2, logits_scaling=2.0, **ENDS, **SMALL),
    "multiplied logits": lambda: transformers.CohereConfig(num_key_value_heads=2, logit_scale=0.3, **ENDS, **SMALL),
    "decoder inside": lambda: transformers.OPTConfig(
        vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=48,
        max_position_embeddings=64, word_embed_proj_dim=32, **ENDS,
    ),
}  # fmt: skip
ROWS = [[5, 6, 7, 8, 9], [3, 4, 5], [11, 12, 13, 14]]


def model_of(name: str) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(transformers.AutoModelForCausalLM.from_config(CONFIGS[name]()).double().eval())


@pytest.mark.parametrize("name", CONFIGS)
def test_the_head_at_chosen_positions_equals_the_whole_model(name: str) -> None:
    model = model_of(name)
    assert model.proof.fast
    batch = ragged(ROWS)
    hidden = model.hidden(batch)
    for row, start in zip(batch.index.tolist(), batch.layout.starts, strict=False):
        whole = model.model(input_ids=torch.tensor([ROWS[row]]), use_cache=False).logits[0]
        places = torch.arange(start, start + len(ROWS[row]))
        assert torch.allclose(model.logits(hidden[places]), whole, rtol=0, atol=1e-10 * whole.abs().max().item())


def test_a_masked_model_runs_its_whole_head() -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(max_position_embeddings=64, **SMALL)
    model = LanguageModel(transformers.BertForMaskedLM(config).double().eval())
    ids = torch.tensor(ROWS[0])
    whole = model.model(input_ids=ids[None]).logits[0]
    assert torch.allclose(model.logits(model.hidden(ragged([ids]))), whole, rtol=0, atol=1e-12)


def test_a_model_without_a_head_is_refused() -> None:
    with pytest.raises(CompatibilityError, match="no language-model head"):
        LanguageModel(transformers.AutoModel.from_config(CONFIGS["llama"]()))


@pytest.mark.parametrize("method", [Lora(rank=4, layers=("q_proj", "lm_head")), Full()], ids=["lora", "full"])
@pytest.mark.parametrize("cells", [96, 96 * 1000], ids=["one at a time", "all at once"])
def test_the_loss_in_chunks_equals_the_plain_one(method: Any, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(language._CELLS, "cpu", cells)
    model = model_of("tied")
    delta = method.attach(model.seams, "a")
    for parameter in delta.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.2)
    batch = ragged(ROWS)
    targets = torch.arange(20, 20 + batch.layout.tokens)
    weights = torch.rand(len(targets), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    loss = model.loss(model.hidden(batch), targets, weights, 0.1, delta.parameters())
    ours = torch.autograd.grad(3 * loss, delta.parameters())
    logits = model.logits(model.hidden(batch))
    plain = (nn.functional.cross_entropy(logits, targets, reduction="none", label_smoothing=0.1) * weights).sum()
    theirs = torch.autograd.grad(3 * plain, delta.parameters())
    assert torch.allclose(loss, plain, rtol=1e-12)
    for mine, own in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, own, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        nats = model.nats(model.hidden(batch), targets)
    assert torch.allclose(nats, nn.functional.cross_entropy(logits, targets, reduction="none"), rtol=1e-10)


class Held:
    """A tensor that the graph keeps for as long as this lives."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


def test_no_logits_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory that autograd holds does not grow with the vocabulary times the positions."""
    monkeypatch.setitem(language._CELLS, "cpu", 96 * 4)
    model = model_of("llama")
    delta = Lora(rank=2, layers=("q_proj",)).attach(model.seams, "a")
    batch = ragged([list(range(5, 45))] * 8)
    hidden = model.hidden(batch)
    held: weakref.WeakSet[Held] = weakref.WeakSet()

    def hold(tensor: torch.Tensor) -> Held:
        held.add(one := Held(tensor))
        return one

    targets, weights = torch.full((len(hidden),), 7), torch.full((len(hidden),), 0.1, dtype=torch.float64)
    with torch.autograd.graph.saved_tensors_hooks(hold, lambda one: one.tensor):
        loss = model.loss(hidden, targets, weights, 0.0, delta.parameters())
    gc.collect()  # of what the chunks' own graphs held
    kept = {one.tensor.untyped_storage().data_ptr(): one.tensor.numel() for one in held}
    assert loss.requires_grad and sum(kept.values()) < 96 * len(hidden) / 4


@pytest.mark.parametrize("name", ["llama", "gpt2", "decoder inside"])
@pytest.mark.parametrize("mixed", [False, True], ids=["one delta", "two deltas and none"])
def test_a_shared_prompt_equals_every_row_with_its_own(name: str, mixed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(name)
    deltas = [Lora(rank=2, layers="all-linear").attach(model.seams, own) for own in "ab"]
    parameters = [parameter for delta in deltas[: 1 + mixed] for parameter in delta.parameters()]
    for parameter in parameters:
        nn.init.normal_(parameter, std=0.2)
    model.seams.use("a")
    begin = list(range(30, 50))
    rows = [[*begin, *range(5, 5 + length)] for length in (3, 6, 3, 1, 4, 2)]
    rows[0] = [*begin[:12], 7, 8, 9]  # its delta's rows share twelve tokens only
    learned = [[0] + [1] * (len(row) - 1) for row in rows]
    batch = ragged(rows, names=["a", "b", "a", None, None, "b"] if mixed else None, learned=learned)
    assert batch.learned is not None
    places = batch.learned.nonzero()[:, 0] - 1
    lengths: list[int] = []
    plain = type(model)._flat
    monkeypatch.setattr(
        type(model), "_flat", lambda self, own, *rest: (lengths.append(own.layout.tokens), plain(self, own, *rest))[1]
    )
    found = []
    for shares in (True, False):
        model._shares = shares
        hidden = model.hidden_at(batch, places)
        weight = torch.linspace(-1, 1, hidden.numel(), dtype=hidden.dtype).view_as(hidden)
        found.append((hidden, *torch.autograd.grad((hidden * weight).sum(), parameters)))
    tolerance = 1e-6 if name == "llama" else 1e-10  # Llama's norms cast to float32
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).norm() <= tolerance * theirs.norm()
    saved = 12 + 21 + 20 if mixed else 5 * 12  # the rest of the second pair begins alike too
    assert lengths == [batch.layout.tokens - saved, batch.layout.tokens]


@pytest.mark.parametrize("name", ["llama", "gpt2", "decoder inside"])
@pytest.mark.parametrize("mixed", [False, True], ids=["one delta", "two deltas"])
def test_a_prompt_runs_once_for_all_passes_of_a_step(name: str, mixed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(name)
    deltas = [Lora(rank=2, layers="all-linear").attach(model.seams, own) for own in "ab"][: 1 + mixed]
    parameters = [parameter for delta in deltas for parameter in delta.parameters()]
    for parameter in parameters:
        nn.init.normal_(parameter, std=0.2)
    begins = {"a": list(range(30, 50)), "b": list(range(40, 56))}
    rows = {own: [[*begin, *range(5, 5 + length)] for length in (3, 6, 3, 1)] for own, begin in begins.items()}
    names = [delta.name for delta in deltas]
    lengths: list[int] = []
    plain = type(model)._flat
    monkeypatch.setattr(
        type(model), "_flat", lambda self, own, *rest: (lengths.append(own.layout.tokens), plain(self, own, *rest))[1]
    )

    def passes() -> list[torch.Tensor]:
        losses = []
        for turn in (slice(0, 2), slice(2, 4)):
            parts = [(own, row) for own in names for row in rows[own][turn]]
            given = [own for own, _ in parts] if mixed else None
            marks = [[0] + [1] * (len(row) - 1) for _, row in parts]  # tokens of the prompt are learned too
            batch = ragged([row for _, row in parts], names=given, learned=marks)
            with model.seams.route(batch.layout.names) if batch.layout.names else nullcontext():
                hidden = model.before_learned(batch)
            weight = torch.linspace(-1, 1, hidden.numel(), dtype=hidden.dtype).view_as(hidden)
            loss = (hidden * weight).sum()
            loss.backward()
            losses.append(loss.detach())
        return losses

    found = []
    for ahead in (True, False):
        model._shares = ahead
        lengths.clear()
        with ExitStack() as prompts:
            for own in names:
                model.seams.use(own)
                if ahead:
                    prompts.enter_context(model.ahead(ragged(rows[own]), own))
            losses = passes()
        found.append([*losses, *(parameter.grad.clone() for parameter in parameters if parameter.grad is not None)])
        for parameter in parameters:
            parameter.grad = None
        if ahead:
            prompt = [len(begins[own]) for own in names]
            assert lengths == [*prompt, 9 * len(names), 4 * len(names)] and not model.leads
    tolerance = 1e-6 if name == "llama" else 1e-10
    assert len(found[0]) == len(found[1]) == 2 + len(parameters)
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).norm() <= tolerance * theirs.norm()


def test_rows_without_a_common_beginning_run_as_they_are() -> None:
    assert share_prompt(ragged([[1, 2, 3, 4], [5, 6, 7, 8]])) is None
    assert share_prompt(ragged([list(range(20))])) is None
    assert share_prompt(ragged([[*range(9), *range(300)], [*range(9), *range(40, 300)]])) is None  # too little


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_gradient_of_one_token_among_thousands_is_not_lost_in_16_bits(dtype: torch.dtype) -> None:
    exact = model_of("tied")
    torch.manual_seed(0)
    hidden, targets = torch.randn(4000, 32, dtype=torch.float64) / 8, torch.randint(0, 96, (4000,))

    def gradient(model: LanguageModel, kind: torch.dtype, scale: float) -> torch.Tensor:
        states = hidden.to(kind, copy=True).requires_grad_()
        weights = torch.full((4000,), 1 / 4000 / 64, dtype=torch.promote_types(kind, torch.float32))
        (model.loss(states, targets, weights) * scale).backward()
        assert states.grad is not None
        return states.grad.double() / scale

    wanted = gradient(exact, torch.float64, 1.0)
    found = gradient(LanguageModel(exact.model.to(dtype)), dtype, 2.0**16)
    assert (found - wanted).norm() <= 2e-2 * wanted.norm()
