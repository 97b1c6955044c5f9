"""Words that the gradient prefers in one place of a prompt, and the words that may be put there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.core.arrays import Codes
from tunesmith.models.layout import RaggedBatch, ragged
from tunesmith.models.placing import widest
from tunesmith.prompts.prompt import Prompt
from tunesmith.runs.prompting import PromptScorer
from tunesmith.search.sources import Row

_ANCHOR = ":"  # stands before a word when it is tokenised, as some text does in a prompt
_LEAST = 3  # letters of a word


def whole_words(tokenizer: Any) -> dict[str, int]:
    """Collect the words of a vocabulary that are one token behind other text.

    Args:
        tokenizer: of the model.
    Returns:
        Word to token id, in lower case, letters only, sorted.
    """
    texts = {tokenizer.decode([number]).strip() for number in sorted(tokenizer.get_vocab().values())}
    words = sorted(text for text in texts if text.isalpha() and text.islower() and len(text) >= _LEAST)
    behind = [_ANCHOR, *(f"{_ANCHOR} {word}" for word in words)]
    anchor, *found = tokenizer(behind, add_special_tokens=False)["input_ids"]
    size = len(anchor)
    return {
        word: int(ids[size])
        for word, ids in zip(words, found, strict=True)
        if len(ids) == size + 1 and list(ids[:size]) == list(anchor)
    }


def told_apart(tokenizer: Any, words: Sequence[str]) -> list[str]:
    """Leave out words that a tokenizer does not know, or writes like an earlier one.

    Args:
        tokenizer: of the model.
        words: any.
    Returns:
        The others, in their order.
    """
    first: dict[tuple[int, ...], str] = {}
    anchor = len(tokenizer(_ANCHOR, add_special_tokens=False)["input_ids"])  # it may be unknown itself
    for word in words:
        ids = tuple(tokenizer(f"{_ANCHOR} {word}", add_special_tokens=False)["input_ids"][anchor:])
        if ids and (tokenizer.unk_token_id is None or tokenizer.unk_token_id not in ids):
            first.setdefault(ids, word)
    return list(first.values())


def substituting(
    scorer: PromptScorer, labels: Sequence[str], words: dict[str, int]
) -> Callable[[Prompt, Prompt, Sequence[Row], Codes, int], list[str]]:
    """Make what names better words by the gradient.

    Args:
        scorer: the model.
        labels: of the task.
        words: that may be named, with their token ids.
    Returns:
        (prompt, the same with another word in one place, rows, classes, count) to words, the best first: those with
        the largest (e_word - e_old) . grad of the mean log p(class), the gradient at the place of the old word. None
        where the two prompts differ in more than one token, or every row holds the old word as well.
    """
    names, ids = list(words), torch.tensor(list(words.values()))

    def substitutes(prompt: Prompt, other: Prompt, rows: Sequence[Row], truth: Codes, best: int) -> list[str]:
        task = scorer.session.task.bound(prompt, scorer.session.tokenizer, scorer.session.max_tokens, labels)  # type: ignore[attr-defined]
        twin = scorer.session.task.bound(other, scorer.session.tokenizer, scorer.session.max_tokens, labels)  # type: ignore[attr-defined]
        tokens, theirs = (one.labels.reader.encode(rows)[0] for one in (task, twin))
        old, kept = _differing([tokens[row].tolist() for row in range(len(rows))],
                               [theirs[row].tolist() for row in range(len(rows))])  # fmt: skip
        if old is None:
            return []
        batch = ragged([torch.from_numpy(tokens[row]) for row in kept], kept)
        gradient = word_gradient(scorer, task, batch, torch.from_numpy(truth), old)
        table = scorer.session.backbone.seams.embedding_weight.detach()
        gain = table[ids.to(table.device)].to(gradient.dtype) @ gradient
        return [names[place] for place in gain.topk(min(best, len(names))).indices.tolist()]

    return substitutes


def word_gradient(scorer: PromptScorer, task: Any, batch: RaggedBatch, truth: Tensor, token: int) -> Tensor:
    """Differentiate the mean log likelihood by the embedding of a token, wherever it stands.

    Args:
        scorer: the model.
        task: bound to the prompt.
        batch: rows; `index` says which.
        truth: class of every row, by number.
        token: id of the token.
    Returns:
        (D,).
    """
    backbone = scorer.session.backbone
    exact = widest(backbone.device)
    head = task.head(backbone.width, len(task.labels.reader.labels)).to(backbone.device, exact).eval()
    task.start_from_texts(head, backbone, scorer.session.tokenizer)
    training = backbone.model.training
    backbone.model.eval()
    with torch.enable_grad(), _watched(backbone.seams.reader.get_input_embeddings()) as calls:  # type: ignore[operator]
        scores = head(task.read(backbone, batch).to(exact)).log_softmax(-1)
        wanted = truth.to(scores.device)[batch.index.to(scores.device)]
        scores.gather(1, wanted[:, None]).mean().backward()
    backbone.model.train(training)
    found = [out.grad[ids == token] for ids, out in calls if out.grad is not None]
    return torch.cat(found).sum(0)


@contextmanager
def _watched(embedding: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Keep what the embedding reads and gives, with gradients."""
    calls: list[tuple[Tensor, Tensor]] = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        given = output.detach().requires_grad_()
        calls.append((inputs[0], given))
        return given

    hook = embedding.register_forward_hook(note)
    try:
        yield calls
    finally:
        hook.remove()


def _differing(first: Sequence[list[int]], second: Sequence[list[int]]) -> tuple[int | None, list[int]]:
    """Find the one token in which rows differ, and the rows that hold it nowhere else."""
    found: dict[int, list[int]] = {}
    for number, (ids, theirs) in enumerate(zip(first, second, strict=True)):
        places = [n for n, (a, b) in enumerate(zip(ids, theirs, strict=False)) if a != b]
        if len(ids) == len(theirs) and len(places) == 1 and ids.count(ids[places[0]]) == 1:
            found.setdefault(ids[places[0]], []).append(number)
    return max(found.items(), key=lambda item: len(item[1])) if found else (None, [])
