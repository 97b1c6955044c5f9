"""Tokens that were made before are found by their content, and only by it."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunesmith.data import token_store
from tunesmith.data.token_store import remembered, rules_of, tokenize_once
from tunesmith.data.tokens import tokenize
from tunesmith.models.loading import load_tokenizer, locate

TEXTS = ["hello there friend", "good morning to you " * 9, "größer 漢字"]


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


@pytest.fixture
def tokenizer(tiny_folder: Path) -> Any:
    return load_tokenizer(locate(str(tiny_folder)))


def once(tokenizer: Any, texts: list[str], max_tokens: int = 8, size: int = 2**20) -> Any:
    return tokenize_once(tokenizer, lambda: iter(texts), size, max_tokens)


def number(value: int, name: str) -> Path | None:
    """Keep one megabyte of a number under a name."""
    return remembered(2**20, lambda: [name], lambda: {"x": np.full(2**17, value)})[1]


def test_the_second_time_they_are_read_and_equal_those_made_anew(tokenizer: Any, folder: Path) -> None:
    assert once(tokenizer, TEXTS)[1] is None
    found, path = once(tokenizer, TEXTS)
    assert path is not None and path.parent == folder
    wanted = tokenize(tokenizer, TEXTS, 8)
    for name in ("ids", "ends", "full_lengths"):
        ours, theirs = getattr(found, name), getattr(wanted, name)
        assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
        assert isinstance(ours.base, np.memmap), "mapped, not loaded"
    assert found.truncated == 1


def test_anything_else_is_made_anew(tokenizer: Any, tiny_writer: Path) -> None:
    once(tokenizer, TEXTS)
    assert once(tokenizer, TEXTS, max_tokens=9)[1] is None
    assert once(tokenizer, [*TEXTS[1:], TEXTS[0]])[1] is None
    assert once(tokenizer, ["hello there friendgood", *TEXTS[1:]])[1] is None
    assert once(load_tokenizer(locate(str(tiny_writer))), TEXTS)[1] is None
    tokenizer.truncation_side = "left"
    assert once(tokenizer, TEXTS)[1] is None


def test_the_last_call_of_a_tokenizer_does_not_matter(tokenizer: Any) -> None:
    before = rules_of(tokenizer)
    tokenizer(TEXTS, truncation=True, max_length=3, padding=True)
    assert rules_of(tokenizer) == before


def test_the_language_of_answers_counts(tokenizer: Any) -> None:
    tokenizer.src_lang, tokenizer.tgt_lang = "en_XX", "de_DE"
    before = rules_of(tokenizer)
    tokenizer.tgt_lang = "fr_XX"
    assert rules_of(tokenizer) != before


def test_what_is_little_is_not_kept(tokenizer: Any, folder: Path) -> None:
    once(tokenizer, TEXTS, size=2**20 - 1)
    assert not folder.exists()


def test_a_tokenizer_that_cannot_say_its_rules_is_not_trusted(tokenizer: Any, folder: Path) -> None:
    class Slow:
        is_fast = False

        def __call__(self, *given: Any, **settings: Any) -> Any:
            return tokenizer(*given, **settings)

    assert len(once(Slow(), TEXTS)[0]) == 3
    assert not folder.exists()


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive", None])
def test_a_damaged_file_is_made_anew(tokenizer: Any, folder: Path, damage: bytes | None) -> None:
    once(tokenizer, TEXTS)
    (path,) = folder.iterdir()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if damage is None else damage)
    found, read = once(tokenizer, TEXTS)
    assert read is None and len(found) == 3
    assert once(tokenizer, TEXTS)[1] == path


def test_a_changed_byte_is_noticed(tokenizer: Any, folder: Path) -> None:
    wanted, _ = once(tokenizer, TEXTS)
    (path,) = folder.iterdir()
    content = bytearray(path.read_bytes())
    content[content.index(wanted.ids.tobytes())] ^= 1
    path.write_bytes(content)
    found, read = once(tokenizer, TEXTS)
    assert read is None and np.array_equal(found.ids, wanted.ids)


def test_what_was_not_used_for_longest_goes(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(token_store, "_LIMIT", 2_500_000)
    number(1, "first"), number(2, "second")
    paths = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    for age, path in enumerate(paths):
        os.utime(path, (1000 + age, 1000 + age))
    assert number(1, "first") is not None, "used again, so it is the younger one now"
    number(3, "third")
    assert len(list(folder.iterdir())) == 2
    assert number(1, "first") is not None and number(3, "third") is not None
    assert number(2, "second") is None


def test_a_folder_that_cannot_be_written_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder.parent.mkdir()
    folder.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING, "tunesmith"):
        assert number(1, "first") is None
    assert "not kept for later runs" in caplog.text


def test_nothing_is_left_when_writing_fails(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(token_store.np, "savez", full)
    number(1, "first")
    assert list(folder.iterdir()) == []


def test_what_may_only_be_read_serves_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(path)

    number(1, "x")
    monkeypatch.setattr(os, "utime", refuse)
    assert number(1, "x") is not None
