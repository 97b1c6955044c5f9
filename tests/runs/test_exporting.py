"""Deltas of runs that write, or fill in, in the layouts of other libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

import tunesmith
from tests.conftest import save_tiny_bert, write_jsonl
from tests.runs.test_language_runs import recipe

TASKS = {
    "instruction-tuning": transformers.AutoModelForCausalLM,
    "text-generation": transformers.AutoModelForMaskedLM,
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", [{"name": "lora", "rank": 2}, {"name": "vera", "rank": 4}])
def test_a_runs_delta_as_plain_lora(task: str, method: dict[str, Any], tiny_writer: Path, tmp_path: Path) -> None:
    """PEFT reads it on the class of model that the run trained, and answers as the run does."""
    writes = task == "instruction-tuning"
    rows = [
        {"question": f"what is {n}?", "answer": "it is"} if writes else {"text": f"it is not {n}"} for n in range(16)
    ]
    train, base = write_jsonl(tmp_path / "rows.jsonl", rows), tiny_writer
    if not writes:
        base = save_tiny_bert(tmp_path / "bert", seed=0)
        transformers.BertForMaskedLM(transformers.AutoConfig.from_pretrained(base)).save_pretrained(base)
        method = {**method, "layers": ["query", "value"]}
    else:
        method = {**method, "layers": ["q_proj", "down_proj"]}
    given = recipe(base, train, tmp_path / "run", data={"train": str(train), "validation": 0.25}, method=method)
    settings = {"samples": 0, "answered_rows": 0} if writes else {"samples": 0, "objective": "masked"}
    run = tunesmith.train({**given, "task": {"name": task, **settings}, "evaluation": {"metrics": ["perplexity"]}})
    tunesmith.convert(run.folder, "peft-lora", tmp_path / "out", tolerance=1e-6)
    ours = run._opened[1].backbone.model
    theirs = peft.PeftModel.from_pretrained(TASKS[task].from_pretrained(base), tmp_path / "out").eval()
    ids = torch.arange(5, 12)[None]
    with torch.no_grad():
        assert (ours(ids).logits - theirs(ids).logits).abs().max() <= 1e-5
        assert (ours(ids).logits - TASKS[task].from_pretrained(base).eval()(ids).logits).abs().max() > 1e-4
