"""The gradient's candidates on tiny models, against the change that really comes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tests.conftest import TEXTS, save_tiny_bert
from tunesmith.models.layout import ragged
from tunesmith.prompts.prompt import Prompt
from tunesmith.runs.prompting import PromptScorer
from tunesmith.search.gradients import substituting, told_apart, whole_words, word_gradient

LABELS = ["you", "friend", "now"]
ROWS = [{"text": text} for texts in TEXTS.values() for text in texts]
TRUTH = np.array([code for code, texts in enumerate(TEXTS.values()) for _ in texts])


@pytest.fixture(scope="module", params=["masked", "causal"])
def scorer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_writer: Path) -> PromptScorer:
    if request.param == "causal":
        return PromptScorer.open(str(tiny_writer))
    folder = save_tiny_bert(tmp_path_factory.mktemp("masked"), 0)
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(folder)
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    return PromptScorer.open(str(folder))


def words_of(scorer: PromptScorer) -> dict[str, int]:
    found = whole_words(scorer.session.tokenizer)
    assert found and all(word.isalpha() and len(word) > 2 for word in found)
    return found


def mean_log(scorer: PromptScorer, prompt: Prompt, rows: Any, truth: Any) -> float:
    table = scorer.log_probabilities(prompt, rows, LABELS)
    return float(table[np.arange(len(rows)), truth].mean())


def test_words_are_one_token_each(scorer: PromptScorer) -> None:
    words, tokenizer = words_of(scorer), scorer.session.tokenizer
    for word, number in list(words.items())[:20]:
        ids = tokenizer(f": {word}", add_special_tokens=False)["input_ids"]
        assert ids[-1] == number and len(ids) == len(tokenizer(":", add_special_tokens=False)["input_ids"]) + 1


def test_the_gradient_is_the_slope(scorer: PromptScorer) -> None:
    """Moving the embedding of the old word a little changes the likelihood by the gradient times the way."""
    word, token = next(iter(words_of(scorer).items()))
    prompt = Prompt(template=f"{{text}} {word} {{label}}")
    rows = [row for row in ROWS if word not in row["text"]]
    truth = TRUTH[[ROWS.index(row) for row in rows]]
    session = scorer.session
    task: Any = session.task.bound(prompt, session.tokenizer, session.max_tokens, LABELS)  # type: ignore[attr-defined]
    tokens, _ = task.labels.reader.encode(rows)
    batch = ragged([torch.from_numpy(tokens[row]) for row in range(len(rows))])
    gradient = word_gradient(scorer, task, batch, torch.from_numpy(truth), token)
    table = session.backbone.seams.embedding_weight
    way = torch.randn(table.shape[1], generator=torch.Generator().manual_seed(0))
    before = table[token].clone()
    ends = []
    with torch.no_grad():
        for step in (3e-4, -3e-4):
            table[token] = before + step * way
            ends.append(mean_log(scorer, prompt, rows, truth))
        table[token] = before
    assert (ends[0] - ends[1]) / 6e-4 == pytest.approx(float(gradient @ way), rel=0.05, abs=2e-3)


def test_the_gradient_is_the_slope_at_the_encoder(tiny_pair: Path) -> None:
    """Encoder-decoders read a row by embeddings of the encoder's own, which the table that both share does not give."""
    scorer = PromptScorer.open(str(tiny_pair))
    session, model = scorer.session, scorer.session.backbone.model.double()
    prompt, labels = Prompt(template="{text} friend {label}"), ["bye", "hello", "thanks"]
    task: Any = session.task.bound(prompt, session.tokenizer, session.max_tokens, labels)  # type: ignore[attr-defined]
    rows = [{"text": "good morning"}, {"text": "many thanks"}]
    token = session.tokenizer(" friend", add_special_tokens=False)["input_ids"][-1]
    tokens, _ = task.labels.reader.encode(rows)
    batch = ragged([torch.from_numpy(tokens[row]) for row in range(len(rows))])
    gradient = word_gradient(scorer, task, batch, torch.tensor([1, 2]), token)
    generator = torch.Generator().manual_seed(0)
    way, steps = torch.randn(len(gradient), generator=generator, dtype=torch.float64), [1e-4, -1e-4]

    def moved(_: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return output + steps[len(ends)] * way * (inputs[0] == token)[..., None]

    hook = model.get_encoder().get_input_embeddings().register_forward_hook(moved)  # type: ignore[operator]
    head = task.head(session.backbone.width, 3).double()
    ends = list[float]()
    while len(ends) < 2:
        with torch.no_grad():
            scores = head(task.read(session.backbone, batch)).log_softmax(-1)
        ends.append(float(scores[batch.index.argsort(), torch.tensor([1, 2])].mean()))
    hook.remove()
    assert gradient.abs().max() > 1e-7
    assert (ends[0] - ends[1]) / 2e-4 == pytest.approx(float(gradient @ way), rel=1e-2)  # T5 norms in float32


def test_named_words_raise_the_likelihood(scorer: PromptScorer) -> None:
    """Of the words named first, most are better than the mean of all."""
    words = words_of(scorer)
    old, other, *_ = words
    prompt, twin = (Prompt(template=f"{{text}} {word} {{label}}") for word in (old, other))
    named = substituting(scorer, LABELS, words)(prompt, twin, ROWS, TRUTH, 5)
    scores = {word: mean_log(scorer, Prompt(template=f"{{text}} {word} {{label}}"), ROWS, TRUTH) for word in words}
    assert len(named) == min(5, len(words))
    assert np.mean([scores[word] for word in named]) > np.mean(list(scores.values()))


def test_no_candidates_where_more_than_a_word_differs(scorer: PromptScorer) -> None:
    words = words_of(scorer)
    first, second, *_ = words
    prompt = Prompt(template=f"{{text}} {first} {{label}}")
    twin = Prompt(template=f"{{text}} {second} {second} {{label}}")
    assert substituting(scorer, LABELS, words)(prompt, twin, ROWS, TRUTH, 5) == []


def test_words_that_cannot_be_told_apart_are_left_out(scorer: PromptScorer) -> None:
    tokenizer = scorer.session.tokenizer
    found = told_apart(tokenizer, ["friend", "you", "friend", "ünknöwn", "now"])
    unknown = tokenizer.unk_token_id is None  # bytes spell everything
    assert found == ["friend", "you", *(["ünknöwn"] if unknown else []), "now"]
