"""Real models and real data: the packaged MiniLM, a pretrained decoder, BANKING77."""

import csv
from pathlib import Path

import peft
import pytest
import torch
import transformers
from torch import nn

import tunesmith
from tests.conftest import real, write_csv
from tunesmith.methods.lora import Lora
from tunesmith.methods.store import save_delta
from tunesmith.models.backbone import Backbone, Proof, pool
from tunesmith.models.layout import ragged
from tunesmith.models.loading import load_model, load_tokenizer, locate
from tunesmith.prompts.prompt import Prompt
from tunesmith.runs.prompting import PromptScorer

pytestmark = pytest.mark.real
TEXTS = ["where is my card?", "I was charged twice for the same thing and nobody answers", "hi", "top up failed again"]


def opened(name: str, dtype: torch.dtype) -> tuple[Backbone, list[list[int]]]:
    source = locate(name)
    if not source.local:
        pytest.skip("the embedded model is not installed")
    model = load_model(source, torch.device("cpu"), dtype)
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return Backbone(model), load_tokenizer(source)(TEXTS)["input_ids"]


@pytest.mark.parametrize(("name", "bound"), [("minilm", 1e-10), ("stories260K", 1e-6)])
def test_ragged_equals_padded(name: str, bound: float) -> None:
    name = str(real("TUNESMITH_MODELS") / name) if name != "minilm" else name
    backbone, rows = opened(name, torch.float64)
    assert backbone.proof.fast
    delta = Lora(rank=4).attach(backbone.seams)
    for parameter in delta.parameters():
        nn.init.normal_(parameter, std=0.02)
    batch, found = ragged(rows), []
    for fast in (True, False):
        backbone.proof = Proof(fast, backbone.proof.position_offset, 0.0)
        loss = pool(backbone.hidden(batch), batch.layout, "mean").pow(3).sum()
        found.append([loss, *torch.autograd.grad(loss, delta.parameters())])
    for ours, theirs in zip(*found, strict=True):
        assert ((ours - theirs).abs().max() / theirs.abs().max()).item() <= bound


def test_peft_gives_the_same_features(tmp_path: Path) -> None:
    backbone, rows = opened("minilm", torch.float32)
    method = Lora(rank=8)
    delta = method.attach(backbone.seams)
    for parameter in delta.parameters():
        nn.init.normal_(parameter, std=0.02)
    save_delta(tmp_path, method, delta, "minilm")
    theirs = peft.PeftModel.from_pretrained(
        transformers.AutoModel.from_pretrained(locate("minilm").path), tmp_path
    ).eval()
    for row in rows:
        batch = ragged([row])
        with torch.no_grad():
            expected = theirs(input_ids=torch.tensor([row])).last_hidden_state[0]
            assert (backbone.hidden(batch) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_decoder_classifies(tmp_path: Path) -> None:
    model = real("TUNESMITH_MODELS") / "stories260K"
    rows = [(text, label) for label, text in (("cat", "the cat sat"), ("dog", "a dog ran fast")) for _ in range(12)]
    train = write_csv(
        tmp_path / "train.csv", [(f"{text} {number}", label) for number, (text, label) in enumerate(rows)]
    )
    run = tunesmith.train(
        {
            "model": str(model),
            "data": {"train": str(train), "validation": 0.25},
            "training": {"epochs": 3, "batch_size": 6, "learning_rate": 1e-2},
            "evaluation": {"resamples": 100},
            "output": str(tmp_path / "run"),
        }
    )
    assert run.metrics["validation"]["accuracy"]["value"] == 1.0
    assert run.summary["fast_path"]["fast"] and "pooling: last" in (run.folder / "recipe.yaml").read_text()


def test_banking77_in_small(tmp_path: Path) -> None:
    """Eight of the 77 intents, two epochs: far above the zero-shot baseline."""
    folder = real("TUNESMITH_DATA") / "banking77"
    for name in ("train.csv", "test.csv"):
        with open(folder / name, encoding="utf-8", newline="") as file:
            rows = [(row["text"], row["category"]) for row in csv.DictReader(file)]
        kept = sorted({label for _, label in rows})[:8]
        write_csv(tmp_path / name, [row for row in rows if row[1] in kept][::2], ("text", "category"))
    data = {"train": str(tmp_path / "train.csv"), "test": str(tmp_path / "test.csv"), "label": "category"}
    run = tunesmith.train(
        {"data": data, "training": {"epochs": 2}, "evaluation": {"resamples": 200}, "output": str(tmp_path / "run")}
    )
    scores = run.metrics["test"]["accuracy"]
    zero_shot = run.summary["baselines"]["zero-shot"]["test"]["accuracy"]
    assert scores["low"] > zero_shot["high"]
    assert scores["value"] > 0.9


def test_label_texts_are_compared_as_plain_transformers_would() -> None:
    source = locate("minilm")
    if not source.local:
        pytest.skip("the embedded model is not installed")
    model = transformers.AutoModel.from_pretrained(source.path).eval()
    tokenizer = load_tokenizer(source)
    labels = {"card": ["a card", "a bank card"], "fees": ["fees"], "other": ["small talk"]}

    def vectors(texts: list[str]) -> torch.Tensor:
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None]
        return nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)

    means = [vectors([f"It is about {word}." for word in words]).mean(0) for words in labels.values()]
    wanted = 20.0 * vectors(TEXTS) @ nn.functional.normalize(torch.stack(means), dim=-1).T
    prompt = Prompt(template="{text} It is about {label}.", label_words=labels)
    found = PromptScorer.open("minilm").log_probabilities(prompt, [{"text": text} for text in TEXTS], list(labels))
    assert torch.allclose(torch.from_numpy(found), wanted.double().log_softmax(-1), atol=1e-4)
    assert found[0].argmax() == 0, "where is my card?"
