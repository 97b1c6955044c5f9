"""Masked language modelling: what is hidden, and the same loss as the model's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import tunesmith
from tests.conftest import save_tiny_bert
from tunesmith.core.errors import CheckpointError, CompatibilityError, RecipeError
from tunesmith.models.language import LanguageModel
from tunesmith.tasks.masking import MaskedRows, around, encode_masked
from tunesmith.tasks.text_generation import TextGeneration
from tunesmith.training.batching import seen_together

TEXT = "good morning to you my friend and many thanks to you hello there see you tomorrow then "


@pytest.fixture(scope="module")
def masked_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny_bert(tmp_path_factory.mktemp("tiny-masked"), seed=0)
    config = transformers.AutoConfig.from_pretrained(folder)
    torch.manual_seed(0)
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def prose(tmp_path: Path) -> Path:
    path = tmp_path / "prose.txt"
    path.write_text("\n".join([TEXT * 3] * 40))
    return path


def rows_of(folder: Path, share: float = 0.15) -> tuple[MaskedRows, Any]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return encode_masked([[TEXT * 9], [TEXT]], tokenizer, 32, share)[0], tokenizer


def test_rows_stand_between_special_tokens_which_are_never_hidden(masked_folder: Path) -> None:
    rows, tokenizer = rows_of(masked_folder, share=0.5)
    for row in range(len(rows)):
        assert rows[row][0] == tokenizer.cls_token_id and rows[row][-1] == tokenizer.sep_token_id
        for draw in range(20):
            seen = rows.seen(row, draw)
            assert seen.learned is not None and seen.hidden is not None
            assert seen.learned.sum() == max(1, round(0.5 * (len(rows[row]) - 2))) == rows.items(row)
            assert not seen.learned[[0, -1]].any()
            assert (seen.ids[~seen.learned] == rows[row][~seen.learned]).all() and (seen.hidden == rows[row]).all()


def test_rows_without_room_and_odd_tokenizers_are_refused(masked_folder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(masked_folder)
    with pytest.raises(RecipeError, match=r"data.max_tokens=2 leaves no room .* sets 2 special tokens .* to 3 or more"):
        encode_masked([[TEXT]], tokenizer, 2, 0.15)
    rows, _ = encode_masked([[TEXT]], tokenizer, 3, 0.15)
    assert len(rows) == len(TEXT.split()) and {len(rows[row]) for row in range(len(rows))} == {3}
    with pytest.raises(CheckpointError, match=r"reads 'a' as the tokens \[7\], and between .* as \[1, 8, 2\]"):
        around(lambda text, add_special_tokens=True: {"input_ids": [1, 8, 2] if add_special_tokens else [7]})


def test_draws_repeat_themselves_and_differ(masked_folder: Path) -> None:
    rows, _ = rows_of(masked_folder)
    assert (rows.seen(0, 3).ids == rows.seen(0, 3).ids).all()
    assert any((rows.seen(0, 3).ids != rows.seen(0, draw).ids).any() for draw in range(4, 8))


def test_most_hidden_tokens_show_the_mask_some_another_some_themselves(masked_folder: Path) -> None:
    rows, tokenizer = rows_of(masked_folder)
    shown = [(seen.ids[seen.learned], seen.hidden[seen.learned]) for draw in range(600) for seen in
             [rows.seen(0, draw)]]  # type: ignore[index]  # fmt: skip
    ids, own = np.concatenate([one for one, _ in shown]), np.concatenate([one for _, one in shown])
    assert len(ids) == 600 * rows.items(0)
    assert (ids == tokenizer.mask_token_id).mean() == pytest.approx(0.8, abs=0.03)
    assert (ids == own).mean() == pytest.approx(0.1, abs=0.03)


def test_the_loss_is_the_models_own(masked_folder: Path) -> None:
    rows, _ = rows_of(masked_folder)
    model = LanguageModel(transformers.BertForMaskedLM.from_pretrained(masked_folder).double().eval())
    seen = [rows.seen(row, 5) for row in range(len(rows))]
    batch, task = seen_together(seen, range(len(rows))), TextGeneration(objective="masked")
    ours = model.nats(task.read(model, batch), batch.targets)
    total = 0.0
    for one in seen:
        labels = torch.tensor(np.where(one.learned, one.hidden, -100))  # type: ignore[arg-type]
        count = int((labels >= 0).sum())
        total += float(model.model(input_ids=torch.tensor(one.ids)[None], labels=labels[None]).loss) * count
    assert float(ours.sum()) == pytest.approx(total, rel=1e-10)


def recipe(folder: Path, prose: Path, output: Path, **changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "task": {"name": "text-generation", "objective": "masked"},
        "model": str(folder),
        "data": {"train": str(prose), "max_tokens": 32},
        "method": {"name": "lora", "rank": 4},
        "training": {"epochs": 3, "batch_size": 8, "learning_rate": 1e-2},
        "evaluation": {"resamples": 100},
        "output": str(output),
    }
    return {**base, **changes}


def test_an_encoder_goes_on_with_texts(masked_folder: Path, prose: Path, tmp_path: Path) -> None:
    run = tunesmith.train(recipe(masked_folder, prose, tmp_path / "run"))
    assert list(run.metrics["validation"]) == ["perplexity", "nats-per-token"]
    before = run.summary["baselines"]["untuned"]["validation"]["nats-per-token"]["value"]
    assert run.metrics["validation"]["nats-per-token"]["value"] < before
    again = tunesmith.Run.load(run.folder)
    with pytest.raises(CompatibilityError, match="cannot write"):
        again.generate("hello")
    assert again.evaluate(str(prose))["perplexity"].value > 1
    found = tunesmith.merge(run, tmp_path / "merged")
    assert found["argmax_agreement"] == 1.0
    merged = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "merged").eval()
    ids = torch.tensor([[2, 20, 4, 30, 3]])
    ours = again._opened[0].backbone.model(input_ids=ids).logits
    assert torch.allclose(merged(input_ids=ids).logits, ours, atol=1e-4)


def test_candidates_equal_their_own_runs(masked_folder: Path, prose: Path, tmp_path: Path) -> None:
    model = {"name": str(masked_folder), "dtype": "float64"}
    both = tunesmith.train(recipe(masked_folder, prose, tmp_path / "both", model=model,
                                  candidates=[{"training.learning_rate": 1e-3}, {"method.rank": 2}]))  # fmt: skip
    changes = {"method": {"name": "lora", "rank": 2}}
    alone = tunesmith.train(recipe(masked_folder, prose, tmp_path / "alone", model=model, **changes))
    theirs = [json.loads(line)["validation loss"] for line in (alone.folder / "history.jsonl").open()]
    ours = [epoch["validation loss"] for epoch in both.summary["candidates"][1]["history"]]
    assert np.allclose(ours, theirs, rtol=1e-8)


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_an_encoder_is_pretrained_from_nothing(architecture: str, prose: Path, tmp_path: Path) -> None:
    new = {"size": "tiny", "architecture": architecture, "vocabulary": 300, "config": {"hidden_size": 32}}
    run = tunesmith.train(recipe(Path(), prose, tmp_path / "run", model={"new": new}, method="full"))
    losses = [json.loads(line)["validation loss"] for line in (run.folder / "history.jsonl").open()]
    assert losses[-1] < losses[0]
    assert tunesmith.Run.load(run.folder).evaluate(str(prose))["perplexity"].value > 1


def test_mistakes_are_named(masked_folder: Path, tiny_writer: Path, prose: Path, tmp_path: Path) -> None:
    wrong = recipe(masked_folder, prose, tmp_path / "run", evaluation={"metrics": ["bits-per-character"]})
    with pytest.raises(RecipeError, match="bits-per-character needs every token"):
        tunesmith.train(wrong)
    with pytest.raises(CompatibilityError, match="no head that fills in hidden tokens for Llama"):
        tunesmith.train(recipe(tiny_writer, prose, tmp_path / "run"))
    new = {"architecture": "llama", "vocabulary": 300}
    with pytest.raises(RecipeError, match="'llama' cannot be made for this task"):
        tunesmith.train(recipe(Path(), prose, tmp_path / "run", model={"new": new}, method="full"))
