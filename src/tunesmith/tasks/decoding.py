"""Generate text: batches of prompts through the model's own cached generation."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import LogitsProcessorList

from tunesmith.core.errors import DataError
from tunesmith.core.seeds import derived
from tunesmith.models.language import LanguageModel
from tunesmith.tasks.drawing import Drawing, narrowing
from tunesmith.tasks.encoding import read_tokens
from tunesmith.tasks.generating import Decoding
from tunesmith.tasks.streaming import Pieces, stripped, until

_log = logging.getLogger("tunesmith")

_TOKENS, _ROWS = 4096, 32  # of one batch of prompts, room for the answers included


@dataclass(frozen=True)
class Answer:
    """What was written.

    Args:
        text: special tokens left out.
        finish: why it ends: "end" (the model ended it), "stop" (a stop text), "length" (max_new_tokens), or "room" (the
            prompt left no more room).
    """

    text: str
    finish: str


class Writer:
    """A language model with its tokenizer, ready to generate.

    Args:
        model: with the delta in use.
        tokenizer: of the model.
        closing: tokens that end an answer.
        room: longest prompt and answer together. [tokens]
        exact: keep white space around what is written, as a text that goes on needs it; answers are without.
    """

    def __init__(
        self, model: LanguageModel, tokenizer: Any, closing: Sequence[str], room: int, exact: bool = False
    ) -> None:
        self.model, self.tokenizer, self.room, self.exact = model, tokenizer, room, exact
        self._closing = [tokenizer.convert_tokens_to_ids(token) for token in closing]

    def encode(self, prompt: str) -> list[int]:
        """Turn a prompt into token ids; special tokens are those it spells out, or those an encoder wants.

        Args:
            prompt: the whole of it, as a chat template wrote it.
        Returns:
            The ids.
        """
        if self.model.apart:
            return read_tokens(self.tokenizer, [prompt])[0]
        found: list[int] = self.tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"]
        return found

    @torch.no_grad()
    def answer(
        self,
        prompts: Sequence[str],
        decoding: Decoding,
        seed: int = 0,
        advance: Callable[[int], None] | None = None,
        cut: str | None = None,
    ) -> list[Answer]:
        """Answer prompts, those of like length together.

        Every prompt has its own stream of random numbers, so what is drawn for it does not depend on the others.

        Args:
            prompts: as text; one that stands there several times gets several samples.
            decoding: how.
            seed: of sampling.
            advance: told how many were answered.
            cut: "end" or "start", where a prompt that leaves no room loses tokens; None for an error.
        Returns:
            One answer per prompt.
        Raises:
            DataError: a prompt leaves no room for an answer and must not be cut.
        """
        rows = self._fitting(prompts, decoding.max_new_tokens, cut)
        found: list[Answer] = [Answer("", "end")] * len(rows)
        seeds = _seeds(prompts, seed)
        with torch.random.fork_rng(devices=[self.model.device] if self.model.device.type == "cuda" else []):
            for numbers in self._batches(rows, decoding):
                answers = self._batch([rows[n] for n in numbers], decoding, [seeds[n] for n in numbers])
                for number, answer in zip(numbers, answers, strict=True):
                    found[number] = answer
                if advance is not None:
                    advance(len(numbers))
        return found

    def rooms(self, prompts: Sequence[str], wanted: int) -> list[int]:
        """Tell how long the answers may become, prompts as they are.

        Args:
            prompts: as text.
            wanted: longest answer that is asked for. [tokens]
        Returns:
            Tokens for each; 0 where the prompt leaves no room.
        """
        lengths = [len(self.encode(prompt)) for prompt in prompts]
        return [self._more(length, wanted) if length <= self._most else 0 for length in lengths]

    def roomy(self, prompt: str, wanted: int) -> bool:
        """Say whether a prompt leaves room for what is asked for, or at least half of the model's room.

        Args:
            prompt: as text.
            wanted: longest answer that is asked for. [tokens]
        Returns:
            Whether it does.
        """
        return len(self.encode(prompt)) <= self._keep(wanted)

    @property
    def _most(self) -> int:
        """Longest prompt that leaves room for an answer. [tokens]"""
        return self.room if self.model.apart else self.room - 1

    def _more(self, prompt: int, wanted: int) -> int:
        """Return how long an answer may become. [tokens]"""
        return min(wanted, self.room - (1 if self.model.apart else prompt))

    def _keep(self, wanted: int) -> int:
        """Return how much of a prompt is kept where it is cut; a decoder's answer gets up to half of the room."""
        return self.room if self.model.apart else max(self.room - wanted, self.room // 2, 1)

    def _batches(self, rows: Sequence[Sequence[int]], decoding: Decoding) -> list[list[int]]:
        """Put rows together whose answers may become equally long, so that each is as it would be alone."""
        wanted, most = decoding.max_new_tokens, 1 if decoding.beams > 1 and decoding.temperature > 0 else _ROWS
        order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
        batches: list[list[int]] = []
        longest = 0
        for number in order:
            more = self._more(len(rows[number]), wanted)
            size = len(rows[number]) + more
            full = not batches or len(batches[-1]) >= most or size * (len(batches[-1]) + 1) > _TOKENS
            if full or more != longest:
                batches.append([])
                longest = more
            batches[-1].append(number)
        return batches

    def _batch(self, rows: Sequence[Sequence[int]], decoding: Decoding, seeds: Sequence[int]) -> list[Answer]:
        longest, device = max(map(len, rows)), self.model.device
        padded = pad_sequence([torch.tensor(row) for row in rows], True, self._closing[0], self._side)
        mask = pad_sequence([torch.ones(len(row), dtype=torch.int64) for row in rows], True, 0, self._side)
        training = self.model.model.training
        self.model.model.eval()
        try:
            written = self.model.model.generate(  # type: ignore[operator]
                input_ids=padded.to(device), attention_mask=mask.to(device), **self.settings(decoding, longest, seeds)
            )
        finally:
            self.model.model.train(training)
        return [self._ended(row.tolist(), longest, decoding) for row in written]

    def _ended(self, row: Sequence[int], prompt: int, decoding: Decoding) -> Answer:
        """Cut what was written at its end, and say what ended it."""
        ids = row[1 if self.model.apart else prompt :]  # behind the decoder's start token, or the prompt
        end = next((place for place, token in enumerate(ids) if token in self._closing), None)
        whole: str = self.tokenizer.decode(list(ids[:end]), skip_special_tokens=True)
        cuts = [place for place in (whole.find(one) for one in decoding.stop) if place >= 0]
        tidy = str if self.exact else str.strip
        if cuts:
            return Answer(tidy(whole[: min(cuts)]), "stop")
        short = self._more(prompt, decoding.max_new_tokens) < decoding.max_new_tokens
        return Answer(tidy(whole), "end" if end is not None else "room" if short else "length")

    @property
    def _side(self) -> str:
        """Where rows are padded: an encoder counts positions from the left, and answers follow their prompts."""
        return "right" if self.model.apart else "left"

    def stream(self, prompt: str, decoding: Decoding, seed: int = 0) -> Iterator[str]:
        """Answer one prompt piece by piece.

        Args:
            prompt: as text.
            decoding: how.
            seed: of sampling.
        Returns:
            Pieces of text; put together they are the answer. It is logged where there was no more room.
        Raises:
            DataError: the prompt leaves no room for an answer.
        """
        row = self._fitting([prompt], decoding.max_new_tokens, None)[0]
        streamer = Pieces(self.tokenizer, 1 if self.model.apart else len(row))
        settings = self.settings(decoding, len(row), _seeds([prompt], seed))
        failed, written = list[Exception](), list[list[int]]()

        def write() -> None:
            try:
                with torch.no_grad():
                    ids = torch.tensor([row], device=self.model.device)
                    found = self.model.model.generate(  # type: ignore[operator]
                        input_ids=ids, attention_mask=torch.ones_like(ids), streamer=streamer, **settings
                    )
                    written.extend(found.tolist())
            except Exception as error:  # noqa: BLE001  raised again where the pieces are read
                failed.append(error)
                streamer.end()

        self.model.model.eval()
        thread = Thread(target=write, daemon=True)
        thread.start()
        pieces = until(streamer, decoding.stop)
        yield from pieces if self.exact else stripped(pieces)
        thread.join()
        if failed:
            raise failed[0]
        tell_of_room([self._ended(written[0], len(row), decoding)], self.room)

    def _fitting(self, prompts: Sequence[str], wanted: int, cut: str | None) -> list[list[int]]:
        rows = [self.encode(prompt) for prompt in prompts]
        for number, row in enumerate(rows):
            if row and len(row) > self._most and cut is not None:
                rows[number] = self._shortened(prompts[number], row, wanted, cut)
            elif len(row) > self._most or not row:
                raise DataError(
                    f"prompt {number + 1} of {len(rows)} has {len(row)} tokens; between 1 and {self._most} leave room "
                    "for an answer. Shorten it, or raise data.max_tokens if the model allows it."
                )
        return rows

    def _shortened(self, prompt: str, row: list[int], wanted: int, cut: str) -> list[int]:
        """Cut a prompt as rows are cut for training."""
        keep = self._keep(wanted)
        if self.model.apart:
            return read_tokens(self.tokenizer, [prompt], keep, cut)[0]
        if cut == "end":
            return row[:keep]
        begins = int(row[0] == self.tokenizer.bos_token_id and keep > 1)
        return [*row[:begins], *row[len(row) - keep + begins :]]

    def settings(self, decoding: Decoding, prompt: int, seeds: Sequence[int]) -> dict[str, Any]:
        """Word the decoding in transformers' terms; a search over beams that draws is seeded here.

        Args:
            decoding: how.
            prompt: tokens of the longest prompt. [count]
            seeds: of the rows.
        Returns:
            Keyword arguments of `generate`.
        """
        sampled = decoding.temperature > 0 and decoding.beams > 1
        found: dict[str, Any] = {
            "max_new_tokens": self._more(prompt, decoding.max_new_tokens),
            "do_sample": sampled,
            "num_beams": decoding.beams,
            "repetition_penalty": decoding.repetition_penalty,
            "eos_token_id": self._closing,
            "pad_token_id": self._closing[0],
        }
        if sampled:
            torch.manual_seed(seeds[0])
            found |= {"temperature": decoding.temperature, "top_k": decoding.top_k or 0, "top_p": decoding.top_p or 1.0}
            found |= {} if decoding.min_p is None else {"min_p": decoding.min_p}
        elif decoding.temperature > 0:
            found["logits_processor"] = LogitsProcessorList([*narrowing(decoding), Drawing(seeds, self.model.device)])
        if decoding.stop:
            found |= {"stop_strings": list(decoding.stop), "tokenizer": self.tokenizer}
        return found


def tell_of_room(answers: Sequence[Answer], room: int) -> None:
    """Log how many answers end because prompt and answer fill the room.

    Args:
        answers: any number.
        room: longest prompt and answer together. [tokens]
    """
    full = sum(one.finish == "room" for one in answers)
    if full:
        _log.warning("%d of %d answers end before max_new_tokens: prompt and answer fill the %d tokens "
                     "(data.max_tokens).", full, len(answers), room)  # fmt: skip


def _seeds(prompts: Sequence[str], seed: int) -> list[int]:
    """Return a seed for every prompt: its own, and another for each time that it stands there again."""
    seen, found = Counter[str](), list[int]()
    for prompt in prompts:
        found.append(derived(seed, f"sample {seen[prompt]} of {prompt}"))
        seen[prompt] += 1
    return found
