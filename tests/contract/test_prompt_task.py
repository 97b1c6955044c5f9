"""Every method trains the task prompt-classification, on models that fill in, write, and write from what they read."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.conftest import save_tiny_bert, save_tiny_pair, save_tiny_writer
from tunesmith.core.registry import components
from tunesmith.models.layout import RaggedBatch, ragged
from tunesmith.models.sequences import open_language
from tunesmith.prompts.prompt import Prompt
from tunesmith.tasks.prompt_classification import PromptClassification
from tunesmith.tasks.tuned import Tuned
from tunesmith.training.preflight import _check_gradients

LABELS = ["greeting", "parting", "thanks"]
PROMPT = Prompt(
    template="{text} this is",
    label_words={"greeting": ["hello", "good morning"], "parting": "goodbye", "thanks": "thank you so much"},
)
ROWS = [{"text": text} for text in ("hello there friend", "see you tomorrow", "many thanks to you")]


@pytest.fixture(scope="module", params=["masked", "causal", "paired"])
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    save = {"masked": lambda folder: save_tiny_bert(folder, 0), "causal": save_tiny_writer,
            "paired": lambda folder: save_tiny_pair(folder, "bart")}[request.param]  # fmt: skip
    return request.param, save(tmp_path_factory.mktemp(request.param))


def opened(kind: str, folder: Path, verbalizer: str) -> tuple[Any, PromptClassification, RaggedBatch]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    torch.manual_seed(0)
    auto = {"masked": transformers.AutoModelForMaskedLM, "causal": transformers.AutoModelForCausalLM,
            "paired": transformers.AutoModelForSeq2SeqLM}[kind]  # fmt: skip
    model = auto.from_config(config).eval()
    task = PromptClassification(scoring="masked" if kind == "masked" else "causal", verbalizer=verbalizer)
    task = task.prepare(model, {}).bound(PROMPT, tokenizer, 64, LABELS)
    backbone = open_language(model)
    backbone.seams.tokenizer = tokenizer
    tokens, _ = task.labels.reader.encode(ROWS)
    batch = ragged([torch.from_numpy(tokens[row]) for row in range(3)], range(3), [0, 1, 2])
    return backbone, task, batch


@pytest.mark.parametrize("name", [name for name, own in components("methods").items() if own.trains])
def test_a_method_trains_a_prompt(kind: tuple[str, Path], name: str) -> None:
    for verbalizer in ("words", "learned") if kind[0] == "masked" else ("words",):
        check(*opened(*kind, verbalizer), kind[0], name)


def check(backbone: Any, task: PromptClassification, batch: RaggedBatch, kind: str, name: str) -> None:
    settings = dict(components("methods")[name].example)
    if "token_indices" in settings:
        settings["token_indices"] = tuple(set(batch.ids.tolist()))  # those that the rows hold
    method = components("methods")[name](**settings)
    if "bias" in method.needs and kind == "causal":
        pytest.skip("a model without biases")
    delta = method.attach(backbone.seams)
    head = task.head(backbone.width, 3)
    task.start_from_texts(head, backbone, backbone.seams.tokenizer)
    tuned = Tuned(backbone, task, head, delta)
    trained = tuned.parameters()
    if not trained:
        assert name == "head-only" and task.verbalizer == "words", "only words without a delta leave nothing to train"
        return
    optimizer = torch.optim.Adam(trained, lr=1e-2)
    first = tuned.loss(batch, 0.0)
    first.backward()
    _check_gradients(delta)
    for _ in range(30):
        optimizer.step()
        optimizer.zero_grad()
        loss = tuned.loss(batch, 0.0)
        if loss.item() < first.item() - 1e-6:
            return
        loss.backward()
    raise AssertionError("the loss must fall in 30 steps")
