"""Look at what a recipe's model would read: token by token, what is input, what is learned, what is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.errors import RecipeError
from tunesmith.core.registry import find
from tunesmith.data.conversations import Conversation
from tunesmith.data.tokens import LearnedRows
from tunesmith.recipe.loading import Checked, load_recipe
from tunesmith.runs.opening import read_corpus
from tunesmith.runs.session import Reading, open_reading, open_session
from tunesmith.tasks.encoding import encode_conversations
from tunesmith.tasks.generating import AnswerTask
from tunesmith.tasks.prompt_classification import Bound, PromptClassification
from tunesmith.training.corpus import Corpus, Split

_HUGE = 10**9  # tokens: no row is cut
_HALF = "\ufffd"  # what a decoder writes for a part of a character

Ids = np.ndarray[Any, Any]
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
    session = open_reading(checked)
    corpus = read_corpus(checked, session)
    train = corpus.splits["train"]
    return {
        "splits": {name: split.audit.plain() for name, split in corpus.splits.items()},
        "rows": [_shown(session, corpus, train, row) for row in _chosen(train, rows)],
        "warnings": [*corpus.warnings, *_left_out(checked)],
        "closing": [] if session.chat is None else session.chat.closing(),
    }


def preview_prompts(
    recipe: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), rows: int = 3
) -> dict[str, Any]:
    """Fill a recipe's prompt in with some of its rows, and say how long it is and what would be cut.

    Args:
        recipe: a YAML file, or a mapping with the same keys.
        overrides: `key=value` texts that win over the recipe.
        rows: so many first training rows; the longest one is shown too. [count]
    Returns:
        "prompt" as a prompt file holds it, "limit" in tokens, "labels" with their texts and tokens, "rows" with text,
        tokens and what was left out, "splits" with lengths, "warnings".
    Raises:
        TunesmithError: any mistake in recipe, model or data.
    """
    if rows < 0:
        raise RecipeError(f"rows={rows}: at least 0.")
    checked = load_recipe(recipe, overrides)
    if checked.task.family != "prompting":
        raise RecipeError(
            f"task: '{checked.task.name}' asks no prompt for labels. Choose prompt-classification, or look with "
            "`tunesmith inspect`."
        )
    strategy = find("demonstrations", checked.recipe.prompt.demonstrations.strategy)
    needs_model = checked.recipe.prompt.demonstrations.count > 0 and strategy.compares
    session: Reading = open_session(checked) if needs_model else open_reading(checked)
    corpus = read_corpus(checked, session)
    assert isinstance(session.task, PromptClassification)
    bound, train = session.task.labels, corpus.splits["train"]
    return {
        "prompt": bound.reader.prompt.to_yaml(),
        "limit": bound.reader.limit,
        "labels": [
            {"label": label, "texts": texts, "tokens": _word_tokens(session, number)}
            for number, (label, texts) in enumerate(zip(corpus.label_names, bound.texts, strict=True))
        ],
        "rows": [_filled(bound, corpus, train, row) for row in _chosen(train, rows)],
        "splits": {name: split.audit.plain() for name, split in corpus.splits.items()},
        "warnings": corpus.warnings,
    }


def _word_tokens(session: Reading, label: int) -> list[int]:
    """Count the tokens of a label's words; none where texts are compared. [tokens]"""
    assert isinstance(session.task, PromptClassification)
    if session.task.labels.reading is None:
        return []
    words = session.task.words
    return [len(ids) for ids, owner in zip(words.ids, words.owners, strict=True) if owner == label]


def _filled(bound: Bound, corpus: Corpus, split: Split, row: int) -> dict[str, Any]:
    """Fill a prompt in with one row."""
    values = next(iter(split.examples.rows([int(split.index[row])])))
    shown = [] if bound.demonstrator is None else bound.demonstrator.shown([values])(0)
    fitted = bound.reader.fitted(values, shown)
    return {
        "where": split.examples.where[int(split.index[row])],
        "label": corpus.label_names[int(split.labels[row])],
        "text": fitted.rendered.shown("{label}") if bound.reading is not None else fitted.rendered.before,
        "tokens": int(split.tokens.full_lengths[row]),
        "kept": int(split.tokens.lengths[row]),
        "demonstrations": fitted.shown,
        "dropped": fitted.dropped,
        "lost_characters": fitted.lost,
    }


def _chosen(split: Split, rows: int) -> list[int]:
    """Return the first rows' numbers, and the longest one's."""
    longest = int(np.argmax(split.tokens.full_lengths))
    return list(dict.fromkeys([*range(min(rows, len(split.tokens))), longest]))


def _left_out(checked: Checked) -> list[str]:
    return [
        f"{step.name} was left out here, as it reads the model's weights."
        for step in checked.listed["cleaning"]
        if getattr(step, "needs_features", False)
    ]


def _shown(session: Reading, corpus: Corpus, split: Split, row: int) -> dict[str, Any]:
    label = corpus.label_names[int(split.labels[row])] if corpus.label_names else None
    return {
        "where": split.examples.where[int(split.index[row])],
        "tokens": int(split.tokens.full_lengths[row]),
        "kept": int(split.tokens.lengths[row]),
        "label": label,
        "pieces": _pieces(session, split, row),
    }


def _pieces(session: Reading, split: Split, row: int) -> list[Piece]:
    ids = split.tokens[row]
    if isinstance(session.task, AnswerTask) and session.chat is not None:
        found = Conversation.of(split.text(row))
        whole = encode_conversations([found], session.chat, _HUGE, "end", session.task.learn).rows
        marks, kept_marks = whole.learned(0), split.tokens.learned(row)
        assert kept_marks is not None
        if not session.chat.apart:
            return _marked(session, whole[0], ids, marks)
        read, kept = whole[0][~marks], ids[~kept_marks]
        return [*_marked(session, read, kept, marks[~marks]),
                *_marked(session, whole[0][marks], ids[kept_marks], marks[marks])]  # fmt: skip
    if isinstance(split.tokens, LearnedRows):
        return _marked(session, ids, ids, split.tokens.learned(row))
    whole_ids = ids
    if session.task.family == "prompting":
        return _marked(session, ids, ids, np.zeros(len(ids), bool))
    if split.tokens.full_lengths[row] > len(ids):
        text = session.template.render(next(iter(split.examples.rows([int(split.index[row])]))))
        whole_ids = np.array(session.tokenizer(text, verbose=False)["input_ids"])
    return _marked(session, whole_ids, ids, np.zeros(len(whole_ids), bool))


def _words(session: Reading, ids: Ids) -> list[str]:
    """Return every token's own text: what the text up to it has more than the text before it.

    A character that several tokens make up is the text of the last of them.
    """
    texts, whole_at = [], [0]  # places between tokens where no character is cut
    for end in range(1, len(ids) + 1):
        start = whole_at[max(0, len(whole_at) - 16)]  # enough context for spaces
        before, now = (
            session.tokenizer.decode(list(ids[start:to])) if to > start else "" for to in (whole_at[-1], end)
        )
        if now.endswith(_HALF) and end < len(ids):
            texts.append("")
            continue
        texts.append(now[len(before) :] if now.startswith(before) else "")
        whole_at.append(end)
    return texts


def _marked(session: Reading, whole: Ids, kept: Ids, learned: Ids) -> list[Piece]:
    """Say what becomes of each token of a row, given what of it is kept: its beginning and its end."""
    shorter = min(len(whole), len(kept))
    different = np.flatnonzero(whole[:shorter] != kept[:shorter])
    begin = int(different[0]) if len(different) else shorter
    lost = range(begin, len(whole) - (len(kept) - begin))
    return [
        (text, "cut" if place in lost else "learned" if mark else "input")
        for place, (text, mark) in enumerate(zip(_words(session, whole), learned.tolist(), strict=True))
    ]
