"""Names of persons in texts, found by a model that labels tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from tunesmith.core.errors import CompatibilityError, TunesmithError
from tunesmith.models.backbone import length_sorted
from tunesmith.models.loading import choose_device, first_place, load_config, load_model, load_tokenizer, locate

_PERSON = re.compile(r"(?:([BIESLU])[-_])?PER(?:SON)?", re.IGNORECASE)
_BEGINS = "BSU"  # letters in front of a label that begin a name
_WINDOW = 512  # longest, also where a model could read more: time grows with its square [tokens]
_AT_ONCE = 8192  # tokens, padding included
_ENDLESS = 10**9
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")

Span = tuple[int, int]


@dataclass(frozen=True)
class _Window:
    """A part of a text that the model reads at once.

    Args:
        text: number of the text.
        ids: (T,), special tokens included.
        places: of its tokens in the text, first character and behind the last one; None of special tokens.
        first: whether the text begins with it.
        last: whether the text ends with it.
    """

    text: int
    ids: list[int]
    places: list[Span | None]
    first: bool
    last: bool


class Tagger:
    """Finds names of persons.

    A word is what tokens without a gap make up, as told by their places in the text; its first token's label counts.
    Words that follow each other and are labelled as the inside of one name are one name. Texts longer than the model
    reads go through it in windows that overlap by a quarter; of a token in two windows the one counts in which it lies
    farther from where the window was cut.

    Args:
        model: that labels tokens, in evaluation mode.
        tokenizer: of the model, one that knows places in the text.
        persons: number of every label of persons, and the letter in front of it, empty where there is none.
        window: longest row. [tokens]
    """

    def __init__(self, model: Any, tokenizer: Any, persons: Mapping[int, str], window: int) -> None:
        self.model, self.tokenizer, self.persons, self.window = model, tokenizer, persons, window

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """Find the names.

        Args:
            texts: any.
        Returns:
            Per text, where each name begins and ends, in order; none overlaps another.
        """
        windows = list(self._windows(texts))
        labels = self._labels([one.ids for one in windows])
        pieces: list[dict[Span, tuple[float, int]]] = [{} for _ in texts]
        for window, some in zip(windows, labels, strict=True):
            _keep_inner(window, some, pieces[window.text])
        return [
            _names(text, {place: label for place, (_, label) in sorted(own.items())}, self.persons)
            for text, own in zip(texts, pieces, strict=True)
        ]

    def _windows(self, texts: Sequence[str]) -> Iterator[_Window]:
        """Cut texts into what the model reads at once."""
        if not texts:
            return
        room = self.window - self.tokenizer.num_special_tokens_to_add()
        read = self.tokenizer(
            list(texts), truncation=True, max_length=self.window, stride=room // 4, return_overflowing_tokens=True,
            return_offsets_mapping=True, return_special_tokens_mask=True,
        )  # fmt: skip
        owners = read["overflow_to_sample_mapping"]
        for number, owner in enumerate(owners):
            marks = zip(read["offset_mapping"][number], read["special_tokens_mask"][number], strict=True)
            places = [None if special else (start, end) for (start, end), special in marks]
            first, last = owners[number - 1 : number] != [owner], owners[number + 1 : number + 2] != [owner]
            yield _Window(owner, read["input_ids"][number], places, first, last)

    @torch.no_grad()
    def _labels(self, rows: Sequence[list[int]]) -> list[list[int]]:
        """Label the tokens of rows, like lengths together."""
        found: list[list[int]] = [[] for _ in rows]
        device, pad = self.model.device, self.tokenizer.pad_token_id or 0
        for part in length_sorted([len(row) for row in rows], _AT_ONCE, len(rows), padded=True):
            longest = max(len(rows[number]) for number in part)
            ids = torch.tensor([rows[number] + [pad] * (longest - len(rows[number])) for number in part])
            real = torch.tensor([[place < len(rows[number]) for place in range(longest)] for number in part])
            logits = self.model(input_ids=ids.to(device), attention_mask=real.long().to(device)).logits
            for number, some in zip(part, logits.argmax(-1).tolist(), strict=True):  # (n, T)
                found[number] = some[: len(rows[number])]
        return found


def _keep_inner(window: _Window, labels: Sequence[int], pieces: dict[Span, tuple[float, int]]) -> None:
    """Note each token's label by its place, unless another window saw more around it."""
    own = [(place, label) for place, label in zip(window.places, labels, strict=True) if place and place[1] > place[0]]
    for number, (place, label) in enumerate(own):
        before = float("inf") if window.first else number
        behind = float("inf") if window.last else len(own) - 1 - number
        around = min(before, behind)
        if around > pieces.get(place, (-1, 0))[0]:
            pieces[place] = around, label


def _names(text: str, labels: Mapping[Span, int], persons: Mapping[int, str]) -> list[Span]:
    """Put tokens together to words, and words to names."""
    words: list[tuple[int, int, int]] = []
    for (start, end), label in labels.items():
        if words and start <= words[-1][1] and _inside_word(text, start):
            words[-1] = words[-1][0], max(end, words[-1][1]), words[-1][2]
        else:
            words.append((start, end, label))
    found: list[Span] = []
    for start, end, label in words:
        if label not in persons:
            continue
        start += len(text[start:end]) - len(text[start:end].lstrip())  # some tokenizers count the space before a word
        gap = text[found[-1][1] : start] if found else "."
        if gap.strip() or "\n" in gap or (persons[label] in _BEGINS and persons[label]):
            found.append((start, end))
        else:
            found[-1] = found[-1][0], end
    return found


def _inside_word(text: str, place: int) -> bool:
    """Whether a place lies in a word: between two letters or digits of a script that has spaces between words."""
    around = text[max(0, place - 1) : place + 1]
    return len(around) == 2 and around.isalnum() and not _UNSPACED.search(around)


def _persons(config: Any, name: str) -> dict[int, str]:
    """Say which labels of a model mark persons, with the letters in front of them."""
    labels = {int(number): str(label) for number, label in config.id2label.items()}
    found = {
        number: (match[1] or "").upper() for number, label in labels.items() if (match := _PERSON.fullmatch(label))
    }
    if not found:
        raise CompatibilityError(
            f"{name} has no label for persons, so it finds no names. Its labels: {', '.join(labels.values())}. Wanted: "
            "PER or PERSON, perhaps with B-, I-, E- or S- before it. Take a token-classification model that marks "
            "persons."
        )
    return found


@lru_cache(maxsize=1)
def open_tagger(name: str) -> Tagger:
    """Load a model that marks persons; the last one stays loaded until `open_tagger.cache_clear()`.

    Args:
        name: folder, or hub name.
    Returns:
        The tagger, on a GPU where there is one.
    Raises:
        TunesmithError: there is no such model, it is damaged, holds pickles only, is of another kind, has no label for
            persons, or a tokenizer that does not know places in the text.
    """
    try:
        source = locate(name)
        config, tokenizer = load_config(source), load_tokenizer(source)
        persons = _persons(config, name)
        if not tokenizer.is_fast:
            raise CompatibilityError(
                f"{name}: its tokenizer does not say where tokens stand in the text. It needs a tokenizer.json."
            )
        model = load_model(source, choose_device("auto"), opens="tags")
        places = getattr(config.get_text_config(), "max_position_embeddings", None) or _ENDLESS
        window = min(places - first_place(model), tokenizer.model_max_length, _WINDOW)
        return Tagger(model, tokenizer, persons, window)
    except TunesmithError as error:
        error.args = (f"tagger: {str(error).removeprefix('model: ')}",)
        raise
