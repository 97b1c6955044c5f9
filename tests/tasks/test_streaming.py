"""Pieces of a text that is being written are, put together, the text."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.conftest import real
from tunesmith.models.loading import load_tokenizer, locate
from tunesmith.tasks.streaming import Pieces, stripped, until

TEXTS = ("first\n  second\n\n \n third", "  two spaces", "说好😀 and 好\n 你", "a\n")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """A SentencePiece tokenizer: bytes of unknown characters, and no space in front of a text's first word."""
    return load_tokenizer(locate(str(real("TUNESMITH_MODELS") / "stories260K")))


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_the_text(tokenizer: Any, text: str) -> None:
    ids = tokenizer(f"<s>{text}</s>", add_special_tokens=False)["input_ids"]
    for skipped in (1, 3):
        pieces = Pieces(tokenizer, skipped)
        pieces.put(torch.tensor([ids[:skipped]]))
        for token in ids[skipped:]:
            pieces.put(torch.tensor([token]))
        pieces.end()
        found = list(pieces)
        assert "".join(found) == tokenizer.decode(ids[skipped:], skip_special_tokens=True)
        assert len(found) > 1 or len(ids) < 6, "they come one by one"
        assert skipped > 1 or not any("\ufffd" in piece for piece in found), "characters are whole"


def test_half_a_character_at_the_end_is_given(tokenizer: Any) -> None:
    ids = tokenizer("<s>😀", add_special_tokens=False)["input_ids"]
    pieces = Pieces(tokenizer, 1)
    for token in ids[:-1]:
        pieces.put(torch.tensor([token]))
    pieces.end()
    assert "".join(pieces) == tokenizer.decode(ids[1:-1])


def test_a_stop_is_found_across_pieces() -> None:
    assert "".join(until(["a b", " st", "op c"], ["stop", "x"])) == "a b "
    assert "".join(until(["a s", "t"], ["stop"])) == "a st"


def test_white_space_around_all_pieces_is_left_out() -> None:
    assert "".join(stripped([" ", "\n a", " ", "\n", "b ", " "])) == "a \nb"
