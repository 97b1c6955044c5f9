"""New tokens: ids in the tokenizer, rows at the mean of the old ones, ties kept."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from tests.methods.test_trainable_tokens import inputs, language_model
from tunesmith.core.errors import CompatibilityError, TargetError
from tunesmith.models.seams import open_seams
from tunesmith.models.tokens import add_tokens
from tunesmith.testing import tiny_models


def spelling(tiny_folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(tiny_folder)


@pytest.mark.parametrize("family", ["gpt2", "llama", "llama-tied", "bart", "t5", "bert"])
def test_new_rows_start_at_the_mean(family: str, tiny_folder: Path) -> None:
    tokenizer, model = spelling(tiny_folder), language_model(family, vocabulary=len(spelling(tiny_folder)))
    known = len(tokenizer)
    given = {name: ids % known for name, ids in inputs(model).items()}
    with torch.no_grad():
        before = model(**given).logits
    old = model.get_input_embeddings().weight.detach().clone()
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    found = add_tokens(model, tokenizer, ["<first>", "friend", "<second>"])
    assert found == [known, tokenizer.get_vocab()["friend"], known + 1] and found[1] < known
    assert tokenizer("<second>", add_special_tokens=False)["input_ids"] == [known + 1]
    table, output = model.get_input_embeddings().weight, model.get_output_embeddings()
    assert table.shape[0] == known + 2 and torch.equal(table[:known], old)
    assert torch.allclose(table[known:], old.mean(0).expand(2, -1), atol=1e-7)
    assert (output.weight is table) == tied
    assert torch.allclose(output.weight[known:], output.weight[:known].mean(0), atol=1e-7)
    with torch.no_grad():
        after = model(**given).logits
    assert after.shape[-1] == known + 2 and torch.allclose(after[..., :known], before, atol=1e-5)


def test_adding_again_changes_nothing_and_repeats(tiny_folder: Path) -> None:
    tokenizer = spelling(tiny_folder)
    model = language_model("gpt2", vocabulary=len(tokenizer))
    first = add_tokens(model, tokenizer, ["<first>"])
    rows = model.get_input_embeddings().weight.detach().clone()
    assert add_tokens(model, tokenizer, ["<first>", "<first>"]) == first * 2
    assert torch.equal(model.get_input_embeddings().weight, rows)
    other = language_model("gpt2", vocabulary=len(spelling(tiny_folder)))
    add_tokens(other, spelling(tiny_folder), ["<first>"])
    assert torch.equal(other.get_input_embeddings().weight, rows)


def test_spare_rows_are_used_before_the_table_grows(tiny_folder: Path) -> None:
    tokenizer = spelling(tiny_folder)
    known = len(tokenizer)
    model = language_model("gpt2", vocabulary=known + 10)
    assert add_tokens(model, tokenizer, ["<first>"]) == [known]
    table = model.get_input_embeddings().weight
    assert len(table) == known + 10
    assert torch.allclose(table[known], table[:known].mean(0), atol=1e-7)


def test_what_cannot_be_extended_is_refused(tiny_folder: Path) -> None:
    tokenizer = spelling(tiny_folder)
    size = len(tokenizer)
    with pytest.raises(CompatibilityError, match="ViTModel has no table"):
        add_tokens(tiny_models()["vision"].build(), tokenizer, ["<first>"])
    with pytest.raises(CompatibilityError, match="Linear has no table"):
        add_tokens(nn.Linear(2, 2), tokenizer, ["<first>"])
    with pytest.raises(TargetError, match="no text for a token"):
        add_tokens(language_model("gpt2"), tokenizer, [])
    with pytest.raises(TargetError, match="'<first>' is one text, whose characters would each be a token"):
        add_tokens(language_model("gpt2"), tokenizer, "<first>")
    with pytest.raises(TargetError, match="none empty"):
        add_tokens(language_model("gpt2"), tokenizer, ["<first>", ""])
    model = language_model("gpt2")
    open_seams(model)
    with pytest.raises(CompatibilityError, match="before the first delta is attached"):
        add_tokens(model, tokenizer, ["<first>"])
    assert len(tokenizer) == size
