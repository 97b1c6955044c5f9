"""Look at what a recipe's model would read: token by token, what is input, what is learned, what is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.errors import RecipeError
from tunesmith.data.conversations import Conversation
from tunesmith.data.tokens import LearnedRows
from tunesmith.recipe.loading import load_recipe
from tunesmith.runs.opening import read_corpus
from tunesmith.runs.session import Session, open_session
from tunesmith.tasks.encoding import encode_conversations
from tunesmith.tasks.generating import AnswerTask
from tunesmith.training.corpus import Corpus, Split

_HUGE = 10**9  # tokens: no row is cut

Piece = tuple[str, str]  # a token's text, and what becomes of it: input, learned or cut


def inspect_recipe(
    recipe: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), rows: int = 3
) -> dict[str, Any]:
    """Read a recipe's data as training would, and show some of its rows.

    Args:
        recipe: a YAML file, or a mapping with the same keys.
        overrides: `key=value` texts that win over the recipe.
        rows: so many first training rows; the longest one is shown too. [count]
    Returns:
        "splits" with the facts of each, "rows" with pieces of text and what becomes of them, "warnings" and "closing",
        the tokens that end an answer.
    Raises:
        TunesmithError: any mistake in recipe, model or data.
    """
    if rows < 0:
        raise RecipeError(f"rows={rows}: at least 0.")
    checked = load_recipe(recipe, overrides)
    session = open_session(checked)
    corpus = read_corpus(checked, session)
    train = corpus.splits["train"]
    longest = int(np.argmax(train.tokens.full_lengths))
    shown = list(dict.fromkeys([*range(min(rows, len(train.tokens))), longest]))
    return {
        "splits": {name: split.audit.plain() for name, split in corpus.splits.items()},
        "rows": [_shown(session, corpus, train, row) for row in shown],
        "warnings": corpus.warnings,
        "closing": [] if session.chat is None else session.chat.closing(),
    }


def _shown(session: Session, corpus: Corpus, split: Split, row: int) -> dict[str, Any]:
    label = corpus.label_names[int(split.labels[row])] if corpus.label_names else None
    return {
        "where": split.examples.where[int(split.index[row])],
        "tokens": int(split.tokens.full_lengths[row]),
        "kept": int(split.tokens.lengths[row]),
        "label": label,
        "pieces": _pieces(session, split, row),
    }


def _pieces(session: Session, split: Split, row: int) -> list[Piece]:
    ids, limit = split.tokens[row], session.max_tokens
    if isinstance(session.task, AnswerTask) and session.chat is not None:
        found = Conversation.of(split.text(row))
        whole = encode_conversations([found], session.chat, _HUGE, "end", session.task.learn).rows
        return _cut(_words(session, whole[0]), whole.learned(0).tolist(), limit, session)
    if isinstance(split.tokens, LearnedRows):
        return _cut(_words(session, ids), split.tokens.learned(row).tolist(), limit, session)
    if split.tokens.full_lengths[row] > len(ids):
        text = session.template.render(next(iter(split.examples.rows([int(split.index[row])]))))
        ids = np.array(session.tokenizer(text, verbose=False)["input_ids"])
    return _cut(_words(session, ids), [False] * len(ids), limit, session)


def _words(session: Session, ids: Sequence[int] | np.ndarray[Any, Any]) -> list[str]:
    """Return every token's own text: what the text up to it has more than the text before it."""
    tokenizer = session.tokenizer
    texts, before = [], ""
    for end in range(1, len(ids) + 1):
        start = max(0, end - 16)  # enough context for spaces and for characters of several tokens
        before = tokenizer.decode(list(ids[start : end - 1])) if end - 1 > start else ""
        whole = tokenizer.decode(list(ids[start:end]))
        texts.append(whole[len(before) :] if whole.startswith(before) else "")
    return texts


def _cut(texts: Sequence[str], learned: Sequence[bool], limit: int, session: Session) -> list[Piece]:
    """Say what becomes of each token."""
    over = len(texts) - limit
    lost = range(0)
    if over > 0:
        front = 1 if session.tokenizer.bos_token_id is not None else 0
        lost = (
            range(front, front + over) if getattr(session.task, "cut", "end") == "start" else range(limit, len(texts))
        )
    return [
        (text, "cut" if place in lost else "learned" if mark else "input")
        for place, (text, mark) in enumerate(zip(texts, learned, strict=True))
    ]
