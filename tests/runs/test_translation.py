"""Recipes whose model is an encoder-decoder, from file to run and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers

import tunesmith
from tests.conftest import write_jsonl
from tunesmith.core.errors import CompatibilityError, DataError, RecipeError
from tunesmith.recipe.loading import load_recipe
from tunesmith.runs.opening import open_family

NUMBERS = {"one": "uno", "two": "dos", "three": "tres", "four": "cuatro", "five": "cinco", "six": "seis"}


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    words = [f"{one} and {two}" for one in NUMBERS for two in NUMBERS]
    rows = [{"source": text, "target": " ".join(NUMBERS.get(word, "y") for word in text.split())} for text in words]
    return write_jsonl(tmp_path / "pairs.jsonl", rows)


def recipe(folder: Path | None, train: Path, output: Path, **changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "task": {"name": "translation", "answered_rows": 3, "samples": 1, "decoding": {"max_new_tokens": 8}},
        "model": str(folder),
        "data": {"train": str(train), "validation": 0.2},
        "method": {"name": "lora", "rank": 4},
        "training": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-2},
        "evaluation": {"resamples": 100},
        "output": str(output),
    }
    return {**base, **changes}


def test_a_pair_of_languages_is_learned_and_spoken(tiny_pair: Path, pairs: Path, tmp_path: Path) -> None:
    tunesmith.train(recipe(tiny_pair, pairs, tmp_path / "run"))
    run = tunesmith.Run.load(tmp_path / "run")
    assert list(run.metrics["validation"]) == ["bleu", "chrf", "perplexity"]
    before = run.summary["baselines"]["untuned"]["validation"]["perplexity"]["value"]
    assert run.metrics["validation"]["perplexity"]["value"] < before
    asked = ["one and two", "six", "four and five and one and two"]
    together = [texts[0] for texts in run.generate(asked)]
    assert together == [run.generate(text)[0][0] for text in asked]
    assert "".join(run.stream(asked[0])).strip() == together[0]
    assert len(run.generate(asked, beams=3)) == 3
    shares = run.choose("one and two", ["uno y dos", "seis", "cuatro y uno"])
    assert sum(shares.values()) == pytest.approx(1)
    (sample,) = run.summary["samples"]
    assert not sample["asked"].endswith("\n")
    scores = run.evaluate(str(pairs))
    assert scores["perplexity"].value > 1


def test_what_is_generated_is_what_the_model_finds_most_probable(tiny_pair: Path, pairs: Path, tmp_path: Path) -> None:
    """Greedy answers through the writer equal transformers' own on the same source, with the delta's logits."""
    run = tunesmith.train(recipe(tiny_pair, pairs, tmp_path / "run"))
    session, _ = run._opened
    ids = session.tokenizer("six and one", return_tensors="pt")["input_ids"]
    model: Any = session.backbone.model
    written = [model.config.decoder_start_token_id]
    for _ in range(8):
        logits = model(input_ids=ids, decoder_input_ids=torch.tensor([written]), use_cache=False).logits[0, -1]
        written.append(int(logits.argmax()))
        if written[-1] == session.tokenizer.eos_token_id:
            break
    assert run.generate("six and one")[0][0] == session.tokenizer.decode(written[1:], skip_special_tokens=True).strip()


def test_rows_hold_what_is_read_and_what_is_written(tiny_pair: Path, pairs: Path, tmp_path: Path) -> None:
    settings = recipe(tiny_pair, pairs, tmp_path / "run", prompt={"system": "translate:"})
    family = open_family(load_recipe(settings), None)
    rows, tokenizer = family.corpus.splits["train"].tokens, family.session.tokenizer
    first = family.corpus.splits["train"].text(0)
    marks = rows.learned(0)
    assert marks is not None and "one and" in first
    source = rows[0][~marks].tolist()
    assert tokenizer.decode(source, skip_special_tokens=True).startswith("translate:\none and")
    assert source == tokenizer(tokenizer.decode(source, skip_special_tokens=True))["input_ids"]
    assert rows[0][marks][-1] == tokenizer.eos_token_id


def test_each_side_is_cut_by_itself_and_shown(tiny_pair: Path, pairs: Path, tmp_path: Path) -> None:
    settings = recipe(tiny_pair, pairs, tmp_path / "run", data={"train": str(pairs), "max_tokens": 10})
    seen = tunesmith.inspect(settings)
    assert seen["splits"]["train"]["truncated"] > 0
    assert any("lost their end" in warning for warning in seen["warnings"])
    longest = seen["rows"][-1]
    kinds = [kind for _, kind in longest["pieces"]]
    assert (
        len(kinds) - kinds.count("cut") == longest["kept"] and kinds.count("cut") == longest["tokens"] - longest["kept"]
    )


def test_a_merged_pair_answers_as_before(tiny_pair: Path, pairs: Path, tmp_path: Path) -> None:
    run = tunesmith.train(recipe(tiny_pair, pairs, tmp_path / "run"))
    found = tunesmith.merge(tmp_path / "run", tmp_path / "merged")
    assert found["argmax_agreement"] == 1.0
    merged = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "merged").eval()
    session, _ = run._opened
    ids = session.tokenizer("two and six", return_tensors="pt")["input_ids"]
    start = torch.tensor([[merged.config.decoder_start_token_id, 40, 41]])
    ours = session.backbone.model(input_ids=ids, decoder_input_ids=start).logits
    assert torch.allclose(merged(input_ids=ids, decoder_input_ids=start).logits, ours, atol=1e-5)


def test_peft_reads_the_delta(tiny_pair: Path, pairs: Path, tmp_path: Path) -> None:
    run = tunesmith.train(recipe(tiny_pair, pairs, tmp_path / "run"))
    base = transformers.AutoModelForSeq2SeqLM.from_pretrained(tiny_pair).eval()
    theirs = peft.PeftModel.from_pretrained(base, str(run.folder / "delta")).eval()
    assert theirs.peft_config["default"].task_type == "SEQ_2_SEQ_LM"
    session, _ = run._opened
    ids = session.tokenizer("two and six", return_tensors="pt")["input_ids"]
    start = torch.tensor([[base.config.decoder_start_token_id, 40, 41]])
    ours = session.backbone.model(input_ids=ids, decoder_input_ids=start).logits
    assert torch.allclose(theirs(input_ids=ids, decoder_input_ids=start).logits, ours, atol=1e-5)


@pytest.mark.parametrize("architecture", ["bart", "t5", "marian"])
def test_a_new_pair_is_trained_from_nothing(architecture: str, pairs: Path, tmp_path: Path) -> None:
    new = {"size": "tiny", "architecture": architecture, "vocabulary": 300, "config": {"d_model": 32}}
    settings = recipe(None, pairs, tmp_path / "run", model={"new": new}, method="full",
                      data={"train": str(pairs), "max_tokens": 32, "validation": 0.2})  # fmt: skip
    run = tunesmith.train(settings)
    again = tunesmith.Run.load(run.folder)
    config = again._opened[0].backbone.model.config
    assert config.max_position_embeddings == 32 if architecture != "t5" else config.num_decoder_layers == 4
    assert again.generate("one and two") == run.generate("one and two")
    history = (run.folder / "history.jsonl").read_text().splitlines()
    assert len(history) == 2


def test_several_answers_are_said_to_count_as_one(tiny_pair: Path, tmp_path: Path) -> None:
    turns = [("user", "one"), ("assistant", "uno"), ("user", "two"), ("assistant", "dos")]
    rows = [{"messages": [{"role": role, "content": text} for role, text in turns]} for _ in range(8)]
    train = write_jsonl(tmp_path / "talks.jsonl", rows)
    settings = recipe(
        tiny_pair, train, tmp_path / "run", task="dialogue", data={"train": str(train), "validation": str(train)}
    )
    seen = tunesmith.inspect(settings)
    assert any("only the last answer" in warning for warning in seen["warnings"])
    assert seen["rows"][0]["pieces"][0][0].strip() in ("", "<s>", "one", "o")


def test_a_text_that_goes_on_needs_a_decoder(tiny_pair: Path, tmp_path: Path) -> None:
    (tmp_path / "prose.txt").write_text("one two three\n" * 50)
    settings = recipe(tiny_pair, tmp_path / "prose.txt", tmp_path / "run", task="text-generation")
    with pytest.raises(CompatibilityError, match="nothing for the encoder"):
        tunesmith.train(settings)


def test_a_prompt_longer_than_the_encoder_is_refused(tiny_pair: Path, pairs: Path, tmp_path: Path) -> None:
    run = tunesmith.train(recipe(tiny_pair, pairs, tmp_path / "run"))
    with pytest.raises(DataError, match="between 1 and 64 leave room"):
        run.generate("one and two " * 40)


def test_likelihoods_do_not_depend_on_the_batch(tiny_pair: Path, pairs: Path, tmp_path: Path) -> None:
    from tunesmith.runs.generating import likelihoods

    settings = recipe(tiny_pair, pairs, tmp_path / "run", model={"name": str(tiny_pair), "dtype": "float64"})
    family = open_family(load_recipe(settings), None)
    rows: Any = family.corpus.splits["train"].tokens
    backbone, task = family.session.backbone, family.session.task
    together = likelihoods(backbone, task, rows)  # type: ignore[arg-type]
    alone = [likelihoods(backbone, task, rows.take(np.array([row])))[0] for row in range(len(rows))]  # type: ignore[arg-type]
    assert np.allclose(together, alone, rtol=1e-6, atol=0)  # T5's norms cast to float32


def test_a_quantised_pair_is_compared_with_full_precision(tiny_pair: Path, pairs: Path, tmp_path: Path) -> None:
    model = {"name": str(tiny_pair), "quantization": "int8"}
    run = tunesmith.train(recipe(tiny_pair, pairs, tmp_path / "run", model=model))
    found = run.summary["quantization"]
    assert found["nats_per_token"] == pytest.approx(found["full_precision_nats_per_token"], rel=0.02)
    assert found["nats_per_token"] != found["full_precision_nats_per_token"]


@pytest.mark.parametrize("architecture", ["bart", "t5", "marian"])
def test_a_new_pair_has_a_pad_token_and_drops_as_told(tmp_path: Path, pairs: Path, architecture: str) -> None:
    config = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
              "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}  # fmt: skip
    if architecture == "t5":
        config = {"d_model": 32, "num_layers": 1, "num_heads": 2, "d_kv": 16, "d_ff": 64}
    model = {"new": {"architecture": architecture, "vocabulary": 300, "config": config}}
    given = recipe(None, pairs, tmp_path / "run", model=model, method="full")
    given["training"] = {**given["training"], "dropout": 0.0}
    given["data"] = {**given["data"], "max_tokens": 48}
    family = open_family(load_recipe(given), None)
    backbone = family.session.backbone
    backbone.model.train()
    ids = torch.tensor([[5, 6, 7, 8]])
    first, second = (backbone.model(input_ids=ids, decoder_input_ids=ids).logits for _ in range(2))
    assert torch.equal(first, second), "training.dropout=0 leaves nothing to chance"
    run = tunesmith.train(given)
    tunesmith.merge(run.folder, tmp_path / "model")
    merged = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model")
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    rows = words(["one and two", "six"], return_tensors="pt", padding=True)
    assert merged(**rows, labels=rows["input_ids"]).loss.isfinite()


def test_candidates_on_a_model_that_drops_by_itself_are_refused(tiny_pair: Path, pairs: Path, tmp_path: Path) -> None:
    given = recipe(tiny_pair, pairs, tmp_path / "run")
    given["candidates"] = [{"training.learning_rate": 1e-3}, {"training.learning_rate": 4e-3}]
    given["training"] = {**given["training"], "dropout": 0.1}
    with pytest.raises(RecipeError, match=r"training\.dropout=0"):
        tunesmith.train(given)
    given["training"]["dropout"] = 0.0
    tunesmith.train(given)
