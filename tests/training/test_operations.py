"""What a step executes, counted, against the least that an exact step needs: it fails when work is added."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from tunesmith.data.tokens import TokenRows
from tunesmith.methods.lora import Lora
from tunesmith.models.backbone import Backbone
from tunesmith.models.language import LanguageModel
from tunesmith.models.layout import RaggedBatch, ragged
from tunesmith.tasks.instruction_tuning import InstructionTuning
from tunesmith.tasks.text_classification import TextClassification
from tunesmith.tasks.tuned import Tuned

VOCABULARY, WIDTH, INNER, BLOCKS = 4096, 384, 1152, 8
SIZES = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": BLOCKS,
         "num_attention_heads": 6}  # fmt: skip
LENGTHS = (40, 44, 52, 60, 60, 75, 90, 96)


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark that counts; the rows of zeros that some products get are counted in test_products."""
    monkeypatch.setattr("tunesmith.models.products._few_heights", lambda x: x)
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return __import__("operations")


def rows(begin: int, answers: int) -> RaggedBatch:
    draw = torch.Generator().manual_seed(0)
    same = torch.randint(10, VOCABULARY, (begin,), generator=draw)
    drawn = [torch.cat([same, torch.randint(10, VOCABULARY, (size,), generator=draw)]) for size in LENGTHS]
    return ragged(drawn, learned=[torch.arange(len(row)) >= len(row) - answers for row in drawn])


@pytest.fixture
def tune(operations: ModuleType) -> Iterator[Callable[..., Tuned]]:
    """Attach LoRA for a task; it leaves the model after the test."""
    found: list[Tuned] = []

    def attach(core: Backbone, task: Any, head: nn.Module, layers: Any = "all-linear") -> Tuned:
        torch.manual_seed(0)
        delta = Lora(rank=operations.RANK, layers=layers).attach(core.seams, "a")
        found.append(Tuned(core, task, head, delta))
        return found[-1]

    yield attach
    for one in found:
        one.delta.detach()


@pytest.fixture(scope="module")
def llama() -> LanguageModel:
    return LanguageModel(transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).eval())


@pytest.fixture(scope="module")
def bert() -> Backbone:
    return Backbone(transformers.BertModel(transformers.BertConfig(**SIZES), add_pooling_layer=False).eval())


def causal(operations: ModuleType, batch: RaggedBatch, begin: int) -> tuple[Any, int]:
    """Return the least tokens of a step, and what the head costs."""
    assert batch.learned is not None
    marks = [part.tolist() for part in batch.learned.split(list(batch.layout.lengths))]
    step = operations.causal_step([(len(mark), mark) for mark in marks], begin)
    return step, 4 * WIDTH * VOCABULARY * step.read


@pytest.mark.parametrize(("begin", "answers", "most"), [(0, 39, 1.03), (0, 4, 1.03), (128, 4, 1.08)])
def test_a_language_models_step(
    begin: int, answers: int, most: float, operations: ModuleType, llama: LanguageModel, tune: Callable[..., Tuned]
) -> None:
    batch = rows(begin, answers)
    tuned = tune(llama, InstructionTuning(), nn.Module())
    step, head = causal(operations, batch, begin)
    least = operations.least(operations.Shape(BLOCKS, WIDTH, INNER, gated=True, causal=True), step, head)
    found = operations.executed(lambda: tuned.loss(batch, 0.0).backward())
    assert least <= found <= most * least, f"{found / least:.4f} times the least"


def test_an_encoders_step_that_reads_one_token_per_row(
    operations: ModuleType, bert: Backbone, tune: Callable[..., Tuned]
) -> None:
    batch = replace(rows(0, 1), labels=torch.arange(len(LENGTHS)) % 3)
    task = TextClassification(head_kind="linear", head_start="random", pooling="cls").prepare(bert.model, {})
    tuned = tune(bert, task, task.head(WIDTH, 3))
    pairs = sum(length**2 for length in LENGTHS)
    tokens = operations.Tokens(sum(LENGTHS), len(LENGTHS), pairs, sum(LENGTHS))
    shape = operations.Shape(BLOCKS, WIDTH, INNER, gated=False, causal=False)
    least = operations.least(shape, tokens, 6 * WIDTH * 3 * len(LENGTHS))
    found = operations.executed(lambda: tuned.loss(batch, 0.0).backward())
    assert least <= found <= 1.05 * least, f"{found / least:.4f} times the least"


def test_frozen_blocks_below_all_deltas_have_no_backward_pass(
    operations: ModuleType, bert: Backbone, tune: Callable[..., Tuned]
) -> None:
    """A frozen block costs what its maps and its attention cost forward, not more."""
    batch = replace(rows(0, 1), labels=torch.arange(len(LENGTHS)) % 3)
    task = TextClassification(head_kind="linear", head_start="random", pooling="mean").prepare(bert.model, {})
    tuned = tune(bert, task, task.head(WIDTH, 3), "top-half")
    found = operations.executed(lambda: tuned.loss(batch, 0.0).backward())
    upper = operations.Shape(BLOCKS // 2, WIDTH, INNER, gated=False, causal=False)
    pairs = sum(length**2 for length in LENGTHS)
    tokens = operations.Tokens(sum(LENGTHS), sum(LENGTHS), pairs, pairs)
    numbers = 4 * WIDTH * WIDTH + 2 * WIDTH * INNER
    frozen = BLOCKS // 2 * (2 * numbers * tokens.sent + 4 * WIDTH * pairs)
    least = operations.least(upper, tokens, 6 * WIDTH * 3 * len(LENGTHS)) + frozen
    assert least <= found <= 1.03 * least, f"{found / least:.4f} times the least"


def test_two_deltas_share_every_frozen_product(operations: ModuleType, bert: Backbone) -> None:
    """A pass for rows of two deltas executes what one for rows of a single delta does."""
    deltas = [Lora(rank=operations.RANK, layers="all-linear").attach(bert.seams, name) for name in "ab"]
    ids = [torch.arange(10, 74)] * 4

    def run(names: str) -> int:
        return int(operations.executed(lambda: bert.hidden(ragged(ids, names=list(names))).square().sum().backward()))

    try:
        assert run("aabb") == run("aaaa")
    finally:
        for delta in deltas:
            delta.detach()


def test_the_benchmarks_rows_train(operations: ModuleType) -> None:
    common = operations.common
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    core = Backbone(transformers.BertModel(config).eval())
    ids, ends = np.arange(40, dtype=np.int32) + 10, np.arange(0, 41, 5)
    split = common.Split(TokenRows(ids, ends, np.diff(ends)), np.arange(8))
    trial = common.classifier(core, split, Lora(rank=2), "a", {"batch_size": 4})
    common.fit([trial])
    assert len(trial.trained.losses) == 2 and trial.trained.examples == 8
