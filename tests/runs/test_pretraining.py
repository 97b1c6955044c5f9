"""Models made from nothing: tokenizer, weights, training, and what can be done with the result."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import tunesmith
from tunesmith.core.errors import CheckpointError, CompatibilityError, RecipeError
from tunesmith.core.memory import peak_bytes, restart_peak

LINES = [f"the {word} bird sings to the {other} moon\n" for word in ("red", "blue") for other in ("gold", "black")]


@pytest.fixture
def prose(tmp_path: Path) -> Path:
    path = tmp_path / "prose.txt"
    path.write_text("".join(LINES * 300))
    return path


def recipe(prose: Path, output: Path, **new: Any) -> dict[str, Any]:
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    return {
        "task": {"name": "text-generation", "samples": 1, "decoding": {"max_new_tokens": 24}},
        "model": {"new": {"tokenizer": "characters", "config": {**small, "intermediate_size": 64}, **new}},
        "data": {"train": str(prose), "max_tokens": 48},
        "method": "full",
        "training": {"epochs": 1, "batch_size": 8, "learning_rate": 1e-2},
        "evaluation": {"resamples": 100},
        "output": str(output),
    }


@pytest.mark.parametrize("tokenizer", ["characters", "bpe"])
def test_a_new_model_learns_is_merged_and_tuned_further(tmp_path: Path, prose: Path, tokenizer: str) -> None:
    run = tunesmith.train(recipe(prose, tmp_path / "run", tokenizer=tokenizer, vocabulary=300))
    assert run.metrics["validation"]["bits-per-character"]["value"] < 0.6
    moved = tmp_path / "elsewhere" / "run"
    shutil.move(run.folder, moved)  # the base made for the run moves with it
    ((text,),) = tunesmith.Run.load(moved).generate("the red bird")
    assert "sings to the" in text
    found = tunesmith.merge(moved, tmp_path / "model")
    assert found["argmax_agreement"] == 1.0
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    ids = words("the red bird", return_tensors="pt")["input_ids"]
    written = model.generate(ids, max_new_tokens=24, do_sample=False, eos_token_id=words.eos_token_id)
    assert words.decode(written[0, ids.shape[1] :], skip_special_tokens=True) == text
    further = {**recipe(prose, tmp_path / "more"), "model": str(tmp_path / "model"), "method": "lora"}
    assert tunesmith.train(further).metrics["validation"]["perplexity"]["value"] < 3


@pytest.mark.parametrize("architecture", ["gpt2", "opt"])
def test_other_architectures_by_name(tmp_path: Path, prose: Path, architecture: str) -> None:
    config = {"gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2}, "opt": {"ffn_dim": 64, "hidden_size": 32,
              "num_hidden_layers": 2, "num_attention_heads": 2, "word_embed_proj_dim": 32}}[architecture]  # fmt: skip
    run = tunesmith.train(recipe(prose, tmp_path / "run", architecture=architecture, config=config))
    assert run.metrics["validation"]["perplexity"]["value"] < 3


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"method": "lora"}, "would tune noise"),
        ({"task": "text-classification"}, "needs a pretrained model"),
        ({"model": {"new": {}, "name": "minilm"}}, "leave one of the two out"),
        ({"model": {"new": {"architecture": "lama"}}}, "did you mean 'llama'"),
        ({"model": {"new": {"config": {"hiden_size": 3}}}}, "unknown key 'hiden_size'"),
        ({"model": {"new": {"size": "gigantic"}}}, "model.new.size"),
        ({"model": {"new": {"config": {"num_hidden_layers": 0}}}}, "a model has at least 1 layer"),
        ({"model": {"new": {"config": {"hidden_size": "big"}}}}, "model.new.config: .*expected int, got str"),
        ({"model": {"new": {"config": {"hidden_act": "nope"}}}}, "these keys in model.new.config: 'nope'"),
        ({"model": {"new": {"config": {"num_attention_heads": 5}}}}, "model.new.config: .*heads .5"),
        (
            {"model": {"new": {"config": {"attention_dropout": 7}}}},
            "attention_dropout=7; a rate of dropout is at least 0",
        ),
        (
            {"model": {"new": {"config": {"eos_token_id": 99999}}}},
            "eos_token_id=99999; the new tokenizer has the tokens 0",
        ),
    ],
)
def test_what_does_not_make_a_model(tmp_path: Path, prose: Path, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(RecipeError, match=match):
        tunesmith.train({**recipe(prose, tmp_path / "run"), **changes})


_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.mark.parametrize("architecture", ["roberta", "bert"])
def test_a_new_encoder_fills_in_rows_of_the_whole_length(tmp_path: Path, prose: Path, architecture: str) -> None:
    """RoBERTa counts places from its pad token's number: it needs that token, and more places than tokens."""
    given = recipe(prose, tmp_path / "run", architecture=architecture, config=_SMALL)
    given["task"] = {"name": "text-generation", "objective": "masked", "samples": 0}
    run = tunesmith.train(given)
    assert run.summary["fast_path"]["fast"] and run.metrics["validation"]["perplexity"]["value"] < 60
    with pytest.raises(RecipeError, match="bits-per-character needs every token"):
        tunesmith.train({**given, "evaluation": {"metrics": ["bits-per-character"]}, "output": str(tmp_path / "other")})


@pytest.mark.parametrize(
    ("architecture", "config", "match"),
    [
        ("gemma2", {**_SMALL, "num_key_value_heads": 2, "head_dim": 16}, "caps its attention scores .softcap=50"),
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 2}, "its head reads more than the last hidden states"),
    ],
)
def test_architectures_that_cannot_be_opened_are_named(
    tmp_path: Path, prose: Path, architecture: str, config: dict[str, Any], match: str
) -> None:
    with pytest.raises(CompatibilityError, match=match):
        tunesmith.train(recipe(prose, tmp_path / "run", architecture=architecture, config=config))


def test_the_memory_of_evaluation_does_not_grow_with_the_rows(tmp_path: Path, prose: Path) -> None:
    prose.write_text("".join(LINES * 40))
    given = recipe(prose, tmp_path / "run")
    given["model"]["new"]["config"]["vocab_size"] = 4096
    run = tunesmith.train(given)
    peaks = []
    for times in (1, 1, 4):  # the first warms up
        more = tmp_path / f"more-{times}.txt"
        more.write_text("".join(LINES * 75 * times))
        restart_peak()
        run.evaluate(str(more))
        peaks.append(peak_bytes())
    assert peaks[2] - peaks[1] < 60e6  # ids and texts of 42,000 tokens; their logits would take 688 MB


def test_a_new_encoder_that_writes_is_causal_elsewhere_too(tmp_path: Path, prose: Path) -> None:
    run = tunesmith.train(recipe(prose, tmp_path / "run", architecture="bert", config={
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}))  # fmt: skip
    tunesmith.merge(run.folder, tmp_path / "model")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    ids = torch.arange(5, 13)[None]
    other = ids.clone()
    other[0, -1] = 20
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits[:, :-1], model(other).logits[:, :-1])


def test_a_run_is_not_replaced_by_one_that_needs_its_model(tmp_path: Path, prose: Path) -> None:
    prose.write_text("".join(LINES * 40))
    run = tunesmith.train(recipe(prose, tmp_path / "run"))
    again = {"start_from": str(run.folder), "data": {"train": str(prose), "max_tokens": 48}, "output": str(run.folder)}
    with pytest.raises(CheckpointError, match="Choose another output"):
        tunesmith.train(again, overwrite=True)
    second = tunesmith.train({**again, "output": str(tmp_path / "second")})  # its model lies in the first
    third = {**again, "start_from": str(second.folder)}
    on_base = {**recipe(prose, run.folder), "model": str(run.folder / "base"), "method": "lora"}
    for needy in (third, on_base):
        with pytest.raises(CheckpointError, match="holds the model that the run starts from"):
            tunesmith.train(needy, overwrite=True)
    for kept in (run, second):
        assert tunesmith.Run.load(kept.folder).generate("the red bird")
