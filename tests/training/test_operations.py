"""What a step executes, counted, against the least that an exact step needs: it fails when work is added."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tunesmith.data.tokens import TokenRows
from tunesmith.methods.lora import Lora
from tunesmith.models.backbone import Backbone
from tunesmith.models.ending import row_ends
from tunesmith.models.language import LanguageModel
from tunesmith.models.layout import RaggedBatch, ragged

VOCABULARY, WIDTH, INNER, BLOCKS = 128, 384, 1152, 8
SIZES = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": BLOCKS,
         "num_attention_heads": 6}  # fmt: skip
LENGTHS = (40, 44, 52, 60, 60, 75, 90, 96)


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark that counts."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return __import__("operations")


def rows(begin: int, answers: int) -> RaggedBatch:
    draw = torch.Generator().manual_seed(0)
    same = torch.randint(10, VOCABULARY, (begin,), generator=draw)
    drawn = [torch.cat([same, torch.randint(10, VOCABULARY, (size,), generator=draw)]) for size in LENGTHS]
    return ragged(drawn, learned=[torch.arange(len(row)) >= len(row) - answers for row in drawn])


def tuned(core: Backbone, operations: ModuleType) -> Any:
    torch.manual_seed(0)
    delta = Lora(rank=operations.RANK, layers="all-linear").attach(core.seams, "a")
    core.seams.use("a")
    return delta


@pytest.fixture(scope="module")
def llama() -> LanguageModel:
    return LanguageModel(transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).eval())


@pytest.mark.parametrize(("begin", "answers", "most"), [(0, 39, 1.08), (0, 4, 1.08), (128, 4, 1.12)])
def test_a_language_models_step(
    begin: int, answers: int, most: float, operations: ModuleType, llama: LanguageModel
) -> None:
    core = llama
    delta = tuned(core, operations)
    batch = rows(begin, answers)
    marks = [part.tolist() for part in batch.learned.split(list(batch.layout.lengths))]
    step = operations.causal_step([(len(mark), mark) for mark in marks], begin)
    shape = operations.Shape(BLOCKS, WIDTH, INNER, gated=True, causal=True)
    least = operations.least(shape, step, 4 * WIDTH * VOCABULARY * step.read)

    def run() -> None:
        hidden = core.before_learned(batch)
        core.loss(hidden, batch.targets, torch.ones(len(hidden))).backward()

    try:
        found = operations.executed(run)
    finally:
        delta.detach()
    assert least <= found <= most * least, f"{found / least:.3f} times the least"


def test_an_encoders_step_that_reads_one_token_per_row(operations: ModuleType) -> None:
    core = Backbone(transformers.BertModel(transformers.BertConfig(**SIZES), add_pooling_layer=False).eval())
    tuned(core, operations)
    batch = rows(0, 1)
    pairs = sum(length**2 for length in LENGTHS)
    tokens = operations.Tokens(sum(LENGTHS), len(LENGTHS), pairs, sum(LENGTHS))
    least = operations.least(operations.Shape(BLOCKS, WIDTH, INNER, gated=False, causal=False), tokens, 0)
    places = row_ends(batch.layout, "cls")
    found = operations.executed(lambda: core.hidden_at(batch, places).square().sum().backward())
    assert least <= found <= 1.1 * least, f"{found / least:.3f} times the least"


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
