"""Label words against plain transformers: every word by a padded forward of its own, in float64."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conftest import save_tiny_bert, save_tiny_pair, save_tiny_writer
from tunesmith.core.errors import RecipeError
from tunesmith.methods.lora import Lora
from tunesmith.methods.prefix import PrefixTuning
from tunesmith.models.layout import ragged
from tunesmith.models.sequences import open_language
from tunesmith.tasks.answering import Reading, tokenize_words
from tunesmith.tasks.verbalizers.base import WordHead

WORDS = [["hello", "good morning to you"], ["thank you so much", "thank you friend"], ["goodbye"]]
TEXTS = [
    "hello there friend, hello there, how are you today",
    "hello there friend, hello there, see you tomorrow then my friend",
    "hello there friend, hello there, many thanks",
]


def opened(folder: Path, kind: str) -> tuple[Any, Any]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    if kind == "masked":
        config = transformers.AutoConfig.from_pretrained(folder)
        model: Any = transformers.BertForMaskedLM(config)
    elif kind == "paired":
        model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    else:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    return model.double().eval(), tokenizer


@pytest.fixture(scope="module", params=["masked", "causal", "bart", "t5"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, str]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "masked":
        save_tiny_bert(folder, 0)
    elif request.param == "causal":
        save_tiny_writer(folder)
    else:
        save_tiny_pair(folder, request.param)
    kind = "paired" if request.param in ("bart", "t5") else request.param
    return *opened(folder, kind), kind


def given(tokenizer: Any, kind: str, text: str) -> list[int]:
    text = f"{text} {tokenizer.mask_token} ." if kind == "masked" else text
    ids: list[int] = tokenizer(text, add_special_tokens=kind != "causal")["input_ids"]
    return ids


def naive(model: Any, tokenizer: Any, kind: str, row: list[int], word: list[int]) -> Tensor:
    """One word after one row, by the model's own forward."""
    if kind == "masked":
        place = row.index(tokenizer.mask_token_id)
        ids = [*row[:place], *[tokenizer.mask_token_id] * len(word), *row[place + 1 :]]
        logits = model(input_ids=torch.tensor([ids])).logits[0, place : place + len(word)]
    elif kind == "causal":
        logits = model(input_ids=torch.tensor([[*row, *word]])).logits[0, len(row) - 1 : -1]
    else:
        start = model.config.decoder_start_token_id
        decoder = torch.tensor([[start, *word[:-1]]])
        logits = model(input_ids=torch.tensor([row]), decoder_input_ids=decoder).logits[0]
    return logits.log_softmax(-1)[range(len(word)), word]


def scored(model: Any, tokenizer: Any, kind: Any, rows: list[list[int]]) -> tuple[Tensor, list[list[int]]]:
    words = tokenize_words(tokenizer, WORDS, kind, " ")
    reading = Reading(words, kind, tokenizer.mask_token_id)
    backbone = open_language(model)
    batch = ragged(rows)
    found = reading.scores(backbone, reading.states(backbone, batch), by_length=False)
    in_order = torch.empty_like(found)
    in_order[batch.index] = found
    return in_order, words.ids


def test_words_score_as_by_a_forward_of_their_own(case: tuple[Any, Any, str]) -> None:
    model, tokenizer, kind = case
    rows = [given(tokenizer, kind, text) for text in TEXTS]
    with torch.no_grad():
        wanted = [
            [naive(model, tokenizer, kind, row, ids).sum() for ids in tokenize_words(tokenizer, WORDS, kind, " ").ids]  # type: ignore[arg-type]
            for row in rows
        ]
        found, ids = scored(model, tokenizer, kind, rows)
    assert max(map(len, ids)) > 2, "words of several tokens are what is tested"
    bound = 1e-6 if kind == "causal" or model.config.model_type == "t5" else 1e-10  # their norms cast to float32
    assert torch.allclose(found, torch.tensor(wanted, dtype=torch.float64), rtol=bound, atol=bound)


@pytest.mark.parametrize("method", [Lora(rank=2), PrefixTuning(length=3)], ids=["lora", "prefix"])
def test_gradients_are_those_of_forwards_of_their_own(case: tuple[Any, Any, str], method: Any) -> None:
    model, tokenizer, kind = case
    rows = [given(tokenizer, kind, text) for text in TEXTS]
    backbone = open_language(model)
    torch.manual_seed(1)
    delta = method.attach(backbone.seams, "tried")
    delta.train(False)
    with torch.no_grad():
        for parameter in delta.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    weights = torch.arange(1.0, 6.0, dtype=torch.float64)
    ids = tokenize_words(tokenizer, WORDS, kind, " ").ids  # type: ignore[arg-type]

    def gradients(loss: Tensor) -> list[Tensor]:
        return [part.detach().clone() for part in torch.autograd.grad(loss, delta.parameters())]

    slow = sum(
        (weights[word] * naive(model, tokenizer, kind, row, own).sum() for row in rows for word, own in enumerate(ids)),
        torch.zeros((), dtype=torch.float64),
    )
    wanted = gradients(slow)
    found = gradients((scored(model, tokenizer, kind, rows)[0] * weights).sum())
    delta.detach()
    scale = max(float(part.abs().max()) for part in wanted)
    bound = 1e-5 if kind == "causal" or model.config.model_type == "t5" else 1e-9
    assert scale > 0
    assert max(float((a - b).abs().max()) for a, b in zip(wanted, found, strict=True)) <= bound * scale


def test_a_row_runs_once_for_all_its_words(tmp_path: Path) -> None:
    model, tokenizer = opened(save_tiny_writer(tmp_path), "causal")
    backbone, seen = open_language(model), list[int]()
    rows = [given(tokenizer, "causal", text) for text in TEXTS]
    hook = model.model.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    reading = Reading(tokenize_words(tokenizer, WORDS, "causal", " "), "causal")
    with torch.no_grad():
        reading.states(backbone, ragged(rows))
    hook.remove()
    same = next(place for place, ids in enumerate(zip(*rows, strict=False)) if len(set(ids)) > 1)
    endings = sum(map(len, reading.ends))
    assert same >= 8, "the rows begin alike"
    assert sum(seen) == same + sum(len(row) - same + endings for row in rows)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([["hello"], [""]], "gives no token"),
        ([["hello"], ["Ωmega"]], "the tokenizer does not know"),
        ([["hello there"], ["hello  there"]], "the same tokens"),
    ],
)
def test_words_that_cannot_be_told_apart_are_refused(tiny_folder: Path, words: list[list[str]], message: str) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_folder)
    with pytest.raises(RecipeError, match=message):
        tokenize_words(tokenizer, words, "masked", " ")


def test_labels_of_several_words_score_the_mean_probability_and_a_thousand_take_little_memory() -> None:
    chances = torch.tensor([[0.1, 0.3, 0.2, 0.4]], dtype=torch.float64)
    head = WordHead([0, 1, 1, 0], 2)
    head.prior.copy_(torch.tensor([0.5, 0.25]).log())
    wanted = torch.tensor([[(0.1 + 0.4) / 2 / 0.5, (0.3 + 0.2) / 2 / 0.25]], dtype=torch.float64)
    assert torch.allclose(head(chances.log()).exp(), wanted)

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = func(*args, **(kwargs or {}))
            if isinstance(found, torch.Tensor):
                self.numbers = max(self.numbers, found.numel())
            return found

    with Largest() as largest:
        assert WordHead(range(1000), 1000)(torch.zeros(8, 1000)).shape == (8, 1000)
    assert largest.numbers == 8000
