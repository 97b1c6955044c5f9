"""The loss of a step is the one that TRL computes on the same rows and weights: the mean over all learned tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from tests.conftest import write_jsonl
from tunesmith.methods.lora import Lora
from tunesmith.recipe.loading import load_recipe
from tunesmith.runs.opening import open_family
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.batching import batch_of

ROWS = [{"prompt": "what is " + "so " * n + "good?", "completion": "a thing " * (n % 3 + 1)} for n in range(12)]


def gpt2(tiny_writer: Path, folder: Path) -> Path:
    """A model without casts to float32, with the tiny writer's tokenizer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_writer)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=256, bos_token_id=0, eos_token_id=1
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def float64_loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    """Transformers' own loss without its cast of the logits to float32."""
    targets = nn.functional.pad(labels, (0, 1), value=-100)[:, 1:]
    whole = nn.functional.cross_entropy(outputs.logits.transpose(1, 2), targets, ignore_index=-100, reduction="sum")
    return whole / num_items_in_batch


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("function", "tolerance"), [(None, 1e-6), (float64_loss, 1e-10)], ids=["as it is", "float64"])
def test_the_loss_and_its_gradients_equal_trls(
    tiny_writer: Path, tmp_path: Path, function: Any, tolerance: float
) -> None:
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    folder, layers = gpt2(tiny_writer, tmp_path / "gpt2"), ("c_attn", "mlp.c_fc")
    family = open_family(load_recipe({
        "task": "instruction-tuning", "model": {"name": str(folder), "dtype": "float64"},
        "data": {"train": str(write_jsonl(tmp_path / "rows.jsonl", ROWS)), "validation": 0.25},
        "training": {"dropout": 0.0},
    }), None)  # fmt: skip
    split, backbone = family.corpus.splits["train"], family.session.backbone
    delta = Lora(rank=4, layers=layers).attach(backbone.seams, "a")
    for parameter in delta.parameters():
        nn.init.normal_(parameter, std=0.1)
    numbers = list(range(6))
    ours = Tuned(backbone, family.session.task, nn.Module(), delta).loss(batch_of(split, numbers), 0.0)
    mine = torch.autograd.grad(ours, delta.parameters())

    places: Any = [(split.tokens[n].tolist(), split.tokens.learned(n)) for n in numbers]
    rows = [{"input_ids": ids, "completion_mask": marks.astype(int)} for ids, marks in places]
    wrapped = with_lora(transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64), delta, layers)
    settings = trl.SFTConfig(
        output_dir=str(tmp_path / "trl"), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[],
        max_length=None, disable_tqdm=True, completion_only_loss=True,
    )  # fmt: skip
    trainer = trl.SFTTrainer(
        wrapped, args=settings, train_dataset=datasets.Dataset.from_list(rows), compute_loss_func=function,
        processing_class=transformers.AutoTokenizer.from_pretrained(folder),
    )  # fmt: skip
    trainer.model.eval()  # no dropout
    batch = trainer.data_collator([trainer.train_dataset[number] for number in numbers])
    learned = (batch["labels"] != -100).sum()
    assert int(learned) == sum(int(marks.sum()) for _, marks in places)
    theirs = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=learned)
    assert torch.allclose(ours, theirs.double(), rtol=tolerance, atol=0)
    for path, patch in delta.patches.items():
        layer = wrapped.base_model.model.get_submodule(path)
        own = torch.autograd.grad(theirs, [layer.lora_A["default"].weight, layer.lora_B["default"].weight],
                                  retain_graph=True)  # fmt: skip
        for parameter, gradient in zip(patch.pair, own, strict=True):
            (found,) = (one for one, other in zip(mine, delta.parameters(), strict=True) if other is parameter)
            assert torch.allclose(found, gradient, rtol=0, atol=tolerance * gradient.abs().max().item())


def with_lora(model: Any, delta: Any, layers: tuple[str, ...]) -> Any:
    """Wrap a model with PEFT's LoRA of the same numbers."""
    import peft

    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=list(layers), fan_in_fan_out=True, task_type="CAUSAL_LM")
    wrapped = peft.get_peft_model(model, config).double()
    with torch.no_grad():
        for path, patch in delta.patches.items():
            layer = wrapped.base_model.model.get_submodule(path)
            for theirs, ours in zip((layer.lora_A, layer.lora_B), patch.pair, strict=True):
                theirs["default"].weight.copy_(ours)
    return wrapped
