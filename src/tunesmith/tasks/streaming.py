"""Text as it is written: pieces that put together are what all tokens decode to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from queue import Queue
from typing import Any

from torch import Tensor
from transformers.generation.streamers import BaseStreamer

_HALF = "\ufffd"  # what a decoder writes for a part of a character


class Pieces(BaseStreamer):  # type: ignore[misc]
    """Receive tokens from transformers' generation, and give the text that each adds to what was written before.

    Everything is decoded again with each token: what a token reads as depends on those before it. transformers' own
    streamer begins anew after a line break, where many tokenizers lose a space.

    Args:
        tokenizer: of the model.
        skipped: tokens in front that are not written, the prompt's. [count]
    """

    def __init__(self, tokenizer: Any, skipped: int) -> None:
        self._tokenizer, self._skipped = tokenizer, skipped
        self._ids: list[int] = []
        self._given = ""
        self._queue: Queue[str | None] = Queue()

    def put(self, value: Tensor) -> None:
        """Take tokens.

        Args:
            value: their ids, of one row.
        """
        self._ids.extend(value.flatten().tolist())
        self._give(self._text())

    def end(self) -> None:
        """Give what is left, and end."""
        self._give(self._text(), True)
        self._queue.put(None)

    def __iter__(self) -> Iterator[str]:
        """Go through the pieces as they come."""
        while (piece := self._queue.get()) is not None:
            yield piece

    def _text(self) -> str:
        found: str = self._tokenizer.decode(self._ids[self._skipped :], skip_special_tokens=True)
        return found

    def _give(self, text: str, last: bool = False) -> None:
        """Give what a text has more than what was given; a character of which a part is missing waits."""
        whole = text if last else text.rstrip(_HALF)
        if len(whole) > len(self._given) and whole.startswith(self._given):
            self._queue.put(whole[len(self._given) :])
            self._given = whole


def until(pieces: Iterable[str], stop: Sequence[str]) -> Iterator[str]:
    """Pass pieces of text on up to the first stop; what may be the beginning of one waits.

    Args:
        pieces: of a text.
        stop: texts that end it.
    Returns:
        The pieces before the first of them.
    """
    held = ""
    for piece in pieces:
        held += piece
        cuts = [place for place in (held.find(one) for one in stop) if place >= 0]
        if cuts:
            yield held[: min(cuts)]
            return
        keep = max((size for one in stop for size in range(1, len(one)) if held.endswith(one[:size])), default=0)
        yield held[: len(held) - keep]
        held = held[len(held) - keep :]
    yield held


def stripped(pieces: Iterable[str]) -> Iterator[str]:
    """Pass pieces on without white space before the first visible character and behind the last one.

    Args:
        pieces: of a text.
    Returns:
        The same pieces, white space around all of them left out.
    """
    held, begun = "", False
    for piece in pieces:
        held += piece if begun else piece.lstrip()
        begun = begun or bool(held)
        visible = held.rstrip()
        yield visible
        held = held[len(visible) :]
