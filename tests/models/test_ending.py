"""The last block ends with the tokens that are read: the same states and gradients, by fewer operations."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tests.models.test_language import model_of
from tunesmith.core.registry import components
from tunesmith.methods.lora import Lora
from tunesmith.models.backbone import Backbone
from tunesmith.models.ending import read_tokens, row_ends
from tunesmith.models.language import LanguageModel
from tunesmith.models.layout import Layout, RaggedBatch, ragged
from tunesmith.models.sharing import read_of_prompt

LENGTHS = (5, 9, 9, 12)
SHAPE = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
CPU = torch.device("cpu")
MODELS: dict[str, Any] = {
    "bert": lambda: transformers.BertModel(transformers.BertConfig(**SHAPE), add_pooling_layer=False),
    "llama": lambda: transformers.LlamaModel(transformers.LlamaConfig(**SHAPE, num_key_value_heads=2)),
    "modernbert": lambda: transformers.ModernBertModel(transformers.ModernBertConfig(**SHAPE, pad_token_id=0)),
    "distilbert": lambda: transformers.DistilBertModel(
        transformers.DistilBertConfig(vocab_size=96, dim=32, n_layers=2, n_heads=4, hidden_dim=48)
    ),
}


def backbone(name: str) -> Backbone:
    torch.manual_seed(0)
    return Backbone(MODELS[name]().eval().double())


def batch(names: tuple[str, ...] | None = None) -> RaggedBatch:
    draw = torch.Generator().manual_seed(0)
    return ragged([torch.randint(10, 96, (length,), generator=draw) for length in LENGTHS], names=names)


def tuned(core: Backbone, name: str, seed: int) -> list[torch.nn.Parameter]:
    torch.manual_seed(seed)
    delta = Lora(rank=3, layers="all-linear").attach(core.seams, name)
    for parameter in delta.parameters():
        parameter.data = 0.3 * torch.randn_like(parameter)
    return list(delta.parameters())


def gradients(states: Tensor, parameters: list[torch.nn.Parameter]) -> list[Tensor]:
    return list(torch.autograd.grad((states * torch.arange(states.numel()).view(states.shape).cos()).sum(), parameters))


@pytest.mark.parametrize("how", ["cls", "last"])
@pytest.mark.parametrize("name", MODELS)
def test_states_and_gradients_are_those_of_the_whole_block(name: str, how: str) -> None:
    core = backbone(name)
    assert core._ending is not None, "the check at load should have allowed it"
    parameters, rows = tuned(core, "default", 1), batch()
    places = row_ends(rows.layout, how)
    assert places is not None
    whole, short = core.hidden(rows)[places], core.hidden_at(rows, places)
    tolerance = 1e-6 if name in ("llama", "modernbert") else 1e-12  # norms or positions in float32
    assert (whole - short).abs().max() <= tolerance * whole.abs().max()
    for first, second in zip(gradients(whole, parameters), gradients(short, parameters), strict=True):
        assert (first - second).abs().max() <= tolerance * max(1.0, float(first.abs().max()))


def test_a_model_that_wants_all_its_tokens_back_runs_whole() -> None:
    """GPT-2 gives its states the shape of its input."""
    config = transformers.GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4)
    core = Backbone(transformers.GPT2Model(config).eval())
    rows = batch()
    places = row_ends(rows.layout, "last")
    assert core.proof.fast and core._ending is None and places is not None
    assert torch.equal(core.hidden_at(rows, places), core.hidden(rows)[places])


def test_rows_of_several_deltas_end_together() -> None:
    core = backbone("bert")
    parameters = [*tuned(core, "a", 1), *tuned(core, "b", 2)]
    rows = batch(("a", "b", "a", "b"))
    places = row_ends(rows.layout, "cls")
    assert places is not None
    whole, short = core.hidden(rows)[places], core.hidden_at(rows, places)
    assert (whole - short).abs().max() <= 1e-12 * whole.abs().max()
    for first, second in zip(gradients(whole, parameters), gradients(short, parameters), strict=True):
        assert (first - second).abs().max() <= 1e-11 * max(1.0, float(first.abs().max()))


def test_the_operations_after_attention_are_those_of_the_read_tokens() -> None:
    """The map behind attention and two of the feed-forward layer leave all other tokens of the last block out."""
    core, rows = backbone("bert"), batch()
    places = row_ends(rows.layout, "cls")
    assert places is not None
    counts = []
    for run in (lambda: core.hidden(rows), lambda: core.hidden_at(rows, places)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run()
        counts.append(counter.get_total_flops())
    hidden, feed_forward, read = 32, 48, len(LENGTHS)
    per_token = 2 * (hidden * hidden + 2 * hidden * feed_forward)
    again = read * 2 * 3 * hidden * hidden  # q, k and v of the read tokens, which nothing needs
    assert counts[0] - counts[1] == (sum(LENGTHS) - read) * per_token - again


def test_soft_prompts_and_whole_rows_keep_the_whole_block() -> None:
    from tunesmith.methods.prompt_tuning import PromptTuning

    core, rows = backbone("bert"), batch()
    assert row_ends(rows.layout, "mean") is None
    PromptTuning(length=3).attach(core.seams, "default")
    places = row_ends(rows.layout, "cls")
    assert places is not None
    assert torch.equal(core.hidden_at(rows, places), core.hidden(rows)[places])


METHODS: dict[str, dict[str, Any]] = {
    "adapter": {}, "ia3": {}, "bitfit": {}, "norm": {}, "last-layers": {"count": 1}, "full": {}, "vera": {"rank": 4},
    "loha": {"rank": 2}, "lokr": {"rank": 2}, "adalora": {}, "prefix": {"length": 3},
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_every_methods_states_and_gradients(method: str) -> None:
    core, rows = backbone("bert"), batch()
    torch.manual_seed(1)
    delta = components("methods")[method](**METHODS[method]).attach(core.seams, "a")
    parameters = list(delta.parameters())
    for parameter in parameters:
        parameter.data = parameter.data + 0.1 * torch.randn_like(parameter)
    core.seams.use("a")
    places = row_ends(rows.layout, "cls")
    assert places is not None and core._ending is not None
    whole, short = core.hidden(rows)[places], core.hidden_at(rows, places)
    assert (whole - short).abs().max() <= 1e-12 * whole.abs().max()
    trained = [
        one
        for one in parameters
        if torch.autograd.grad(whole.sum(), one, retain_graph=True, allow_unused=True)[0] is not None
    ]
    for first, second in zip(gradients(whole, trained), gradients(short, trained), strict=True):
        assert (first - second).abs().max() <= 1e-11 * first.abs().max().clamp(min=1.0)


# Language models that learn answers only ------------------------------------------------------------------------

ANSWERS = (1, 3, 2, 4)  # learned tokens at each row's end


def answered(begin: int, names: tuple[str, ...] | None = None) -> RaggedBatch:
    """Rows with a common beginning, the first of them nothing else but its answer behind it."""
    draw = torch.Generator().manual_seed(0)
    same = torch.randint(10, 96, (begin,), generator=draw)
    sizes = (1 if begin else 5, 9, 9, 12)
    rows = [torch.cat([same, torch.randint(10, 96, (size,), generator=draw)]) for size in sizes]
    learned = [torch.arange(len(row)) >= len(row) - count for row, count in zip(rows, ANSWERS, strict=True)]
    return ragged(rows, names=names, learned=learned)


def compared(core: LanguageModel, rows: RaggedBatch, parameters: list[torch.nn.Parameter], led: bool) -> None:
    """Ask for the same states and gradients with the whole last block and with the short one."""
    found, ending = list[list[Tensor]](), core._ending
    assert ending is not None, "the check at load should have allowed it"
    for core._ending in (None, ending):
        for parameter in parameters:
            parameter.grad = None
        with core.ahead(rows, "a") if led else nullcontext():
            states = core.before_learned(rows)
            (states * torch.arange(states.numel()).view(states.shape).cos()).sum().backward()
        found.append([states, *(parameter.grad for parameter in parameters if parameter.grad is not None)])
    for whole, short in zip(*found, strict=True):
        assert (whole - short).abs().max() <= 1e-6 * whole.abs().max()  # norms or positions in float32
    assert any(gradient.any() for gradient in found[0][1:])


@pytest.mark.parametrize("led", [False, True], ids=["in one pass", "ahead"])
@pytest.mark.parametrize("begin", [0, 12])
@pytest.mark.parametrize("name", ["llama", "decoder inside", "multiplied logits"])
def test_answers_end_alone(name: str, begin: int, led: bool) -> None:
    core = model_of(name)
    parameters = tuned(core, "a", 1)
    core.seams.use("a")
    compared(core, answered(begin), parameters, led)


@pytest.mark.parametrize("begin", [0, 12])
def test_answers_of_several_deltas_end_alone(begin: int) -> None:
    core = model_of("llama")
    parameters = [*tuned(core, "a", 1), *tuned(core, "b", 2)]
    compared(core, answered(begin, ("a", "b", "a", "b")), parameters, False)


def test_which_tokens_are_read() -> None:
    read = read_tokens(Layout((3, 2, 4), ("a", "b", "b")), torch.tensor([8, 1, 8, 7]), CPU)
    assert read is not None
    assert (read.places.tolist(), read.order.tolist()) == ([1, 7, 8], [2, 0, 2, 1])
    assert (read.layout.lengths, read.layout.names) == ((1, 2), ("a", "b"))
    assert read_tokens(Layout((3, 2)), torch.arange(4), CPU) is None, "leaving one of five out does not pay"
    assert read_tokens(Layout((3, 2)), torch.arange(0), CPU) is None


def test_questions_cost_the_last_block_no_operations_behind_attention() -> None:
    core, rows = model_of("llama"), answered(0)
    counts, ending = [], core._ending
    for core._ending in (None, ending):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            core.before_learned(rows)
        counts.append(counter.get_total_flops())
    hidden, feed_forward, shared, read = 32, 48, 16, sum(ANSWERS)
    per_token = 2 * (hidden * hidden + 3 * hidden * feed_forward)
    again = read * 2 * hidden * (hidden + 2 * shared)  # q, k and v of the read tokens, which nothing needs
    assert counts[0] - counts[1] == (rows.layout.tokens - read) * per_token - again


def test_which_tokens_of_a_prompt_are_read() -> None:
    learned = [torch.tensor([place in (5, 9, 10) for place in range(12)]), torch.arange(11) >= 10]
    rows = ragged([torch.arange(12), torch.arange(11)], learned=learned)
    assert read_of_prompt(rows, 10).tolist() == [4, 8, 9]
    assert read_of_prompt(rows, 3).tolist() == [2], "its last token at least"


def test_a_prompt_ends_with_its_last_token() -> None:
    """The operations behind attention in the last block are those of one token, and of the answers."""
    core, rows = model_of("llama"), answered(12)
    core.seams.use(None)
    counts, ending = [], core._ending
    for core._ending in (None, ending):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            core._lead(rows)
        counts.append(counter.get_total_flops())
    per_token = 2 * (32 * 32 + 3 * 32 * 48)
    assert counts[0] - counts[1] == 11 * per_token - 2 * 32 * (32 + 2 * 16)
