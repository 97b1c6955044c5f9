"""From files of texts or conversations to token rows of which some tokens are learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.errors import DataError
from tunesmith.data import audit
from tunesmith.data.cleaned import read_cleaned
from tunesmith.data.conversations import Conversation, columns_reader, read_conversations
from tunesmith.data.documents import WholeFile
from tunesmith.data.examples import Columns, Examples, find_reader, read_examples
from tunesmith.data.near import without_shared_start
from tunesmith.data.token_store import remembered, rules_of
from tunesmith.prompts.chat import Chat
from tunesmith.recipe.schema import DataSettings
from tunesmith.tasks.encoding import Encoded, encode_conversations
from tunesmith.tasks.generating import AnswerTask
from tunesmith.tasks.text_generation import TextGeneration
from tunesmith.training.cleaning import changes_of, cleaning_sentences, filter_training, steps_without_model
from tunesmith.training.corpus import FEW, Corpus, Split
from tunesmith.training.parts import Part, hold_out, keep_near_together, of_types, separate, shares
from tunesmith.training.reading import resolve_path

_SILENT_SHARE = 0.01  # of the rows, that may lose their whole answer by cutting


def load_texts(
    data: DataSettings, task: AnswerTask | TextGeneration, chat: Chat, max_tokens: int, seed: int, folder: Path
) -> Corpus:
    """Read everything a language task needs.

    Args:
        data: the recipe's data settings.
        task: says what a row is.
        chat: template and tokenizer.
        max_tokens: longest row. [tokens]
        seed: of the run.
        folder: the recipe's, for relative paths.
    Returns:
        The splits with their facts and warnings; they have no labels.
    Raises:
        DataError: anything wrong with the data, with file and line.
    """
    paths = {"train": data.train, "validation": data.validation, "test": data.test}
    files = {name: _read(path, data, task, folder) for name, path in paths.items() if isinstance(path, str)}
    parts = {name: _part(examples, task) for name, examples in files.items()}
    said, leaked = separate(parts, data.leakage)
    warnings = [*of_types(files), *said]
    warnings.extend(_hold_out(parts, data, seed, task))
    parts["train"], findings = filter_training(parts["train"], data, partial(_texts, task), (), seed)
    warnings.extend(cleaning_sentences(steps_without_model(data), list(files.values()), findings))
    order: list[str] = [name for name in ("train", "validation", "test") if name in parts]
    splits = {}
    for name in order:
        splits[name] = _encode(name, parts, task, chat, max_tokens)
        warnings.extend(splits[name].remarks)
    return Corpus(
        [], splits, warnings, "+".join(files[name].content_hash[:32] for name in files), findings=[*leaked, *findings]
    )


def training_texts(data: DataSettings, task: AnswerTask | TextGeneration, seed: int, folder: Path) -> Iterator[str]:
    """Go through the texts that will train, those held out left aside; for a tokenizer.

    Args:
        data: the recipe's data settings.
        task: says what a row is.
        seed: of the run.
        folder: the recipe's, for relative paths.
    Returns:
        The texts; of conversations, every message.
    Raises:
        DataError: anything wrong with the data, with file and line.
    """
    parts = {"train": _part(_read(data.train, data, task, folder), task)}
    _hold_out(parts, data, seed, task)
    train, _ = filter_training(parts["train"], data, partial(_texts, task), (), seed)
    for row in train.examples.rows(train.index):
        if isinstance(task, AnswerTask):
            yield from (message["content"] for message in Conversation.of(row["text"]).messages)
        else:
            yield row["text"]


def read_texts(
    path: str | Path, data: DataSettings, task: AnswerTask | TextGeneration, chat: Chat, max_tokens: int
) -> Split:
    """Read one file as a split, for scoring.

    Args:
        path: of the file.
        data: the recipe's data settings.
        task: says what a row is.
        chat: template and tokenizer.
        max_tokens: longest row. [tokens]
    Returns:
        The split.
    Raises:
        DataError: anything wrong with the file, with its line.
    """
    part = _part(_read(path, data, task, Path.cwd()), task)
    return _encode("test", {"test": part, "train": part}, task, chat, max_tokens)


def _read(path: str | Path, data: DataSettings, task: AnswerTask | TextGeneration, folder: Path) -> Examples:
    place = resolve_path(path, folder)
    if isinstance(task, AnswerTask):
        reader, columns = columns_reader(place, data.encoding, data.max_characters, data.columns)
        form, changes = task.form(columns, place), changes_of(data)
        return read_conversations(reader, form, task.columns, data.empty == "drop", changes)
    reader = find_reader(place, data.encoding, data.max_characters, data.columns)
    if reader.only_column is not None and task.documents == "file":
        if data.cleaning:
            raise DataError(f"{place}: data.cleaning is for rows, and this is one long text. Leave it out, or set "
                            "task.documents=line.")  # fmt: skip
        return read_examples(WholeFile(reader.path, data.encoding, 10**9), Columns("text", None))
    wanted = Columns(reader.only_column or data.text, None)
    return read_cleaned(reader, wanted, data.empty == "drop", changes_of(data))


def _part(examples: Examples, task: AnswerTask | TextGeneration) -> Part:
    texts = (row["text"] for row in examples.rows())
    if isinstance(task, AnswerTask):
        texts = (_asked(Conversation.of(text)) for text in texts)
    dropped = {"empty": len(examples.dropped)} if examples.dropped else {}
    rows = len(examples)
    return Part(examples, np.arange(rows), np.zeros(rows, np.int64), dropped, audit.text_hashes(texts))


def _hold_out(parts: dict[str, Part], data: DataSettings, seed: int, task: AnswerTask | TextGeneration) -> list[str]:
    """Hold random rows out, of one long text its end; say what was kept together."""
    wanted, train, said = shares(data), parts["train"], list[str]()
    if _is_one(task, train.examples):
        _hold_out_end(parts, wanted, data.near_copies)
        return said
    if wanted and data.near_copies is not None:
        said.append(keep_near_together(train, _sides(train, task), data.near_copies))
    hold_out(parts, wanted, seed)
    return said


def _sides(part: Part, task: AnswerTask | TextGeneration) -> list[list[str]]:
    """Return what may be alike: questions and answers, or texts."""
    texts = [row["text"] for row in part.examples.rows(part.index)]
    if not isinstance(task, AnswerTask):
        return [texts]
    found = [Conversation.of(text) for text in texts]
    return [without_shared_start([_asked(one) for one in found]), [one.answer for one in found]]


def _texts(task: AnswerTask | TextGeneration, part: Part) -> list[str]:
    texts = [row["text"] for row in part.examples.rows(part.index)]
    if not isinstance(task, AnswerTask):
        return texts
    return ["\n".join(message["content"] for message in Conversation.of(text).messages) for text in texts]


def _asked(conversation: Conversation) -> str:
    return "\n".join(message["content"] for message in conversation.question)


def _hold_out_end(parts: dict[str, Part], wanted: Mapping[str, float], near_copies: float | None) -> None:
    """Hold out the end of one long text: validation comes before test, train before both."""
    path, pieces = parts["train"].examples.path, len(parts["train"].index)
    if wanted and near_copies is not None:
        raise DataError(f"{path}: data.near_copies={near_copies} is for rows, and this is one long text. Leave it out.")
    for name, share in wanted.items():
        train = parts["train"]
        cut = len(train.index) - max(1, round(share * pieces))
        if cut < 1:
            raise DataError(
                f"{path} is too short to hold {share} of it out for {name}: {pieces} pieces of about "
                f"4,000 characters. Give a {name} file."
            )
        parts[name] = replace(train.only(slice(cut, None)), dropped={})
        parts["train"] = train.only(slice(cut))


def _is_one(task: AnswerTask | TextGeneration, examples: Examples) -> bool:
    return isinstance(task, TextGeneration) and task.documents == "file" and examples.where[0].startswith("piece")


def _encode(name: str, parts: dict[str, Part], task: AnswerTask | TextGeneration, chat: Chat, max_tokens: int) -> Split:
    part = parts[name]
    found, kept_in = _once(part, task, chat, max_tokens)
    rows = found.rows
    silent = [part.examples.where[int(part.index[row])] for row in found.silent]
    _check_silent(part, silent, max_tokens)
    index = part.index[found.kept]
    in_train = 0 if name == "train" else int(np.isin(part.hashes, parts["train"].hashes).sum())
    facts = audit.Audit(
        rows=len(rows),
        classes={},
        dropped=part.dropped,
        duplicates=int(len(part.hashes) - len(np.unique(part.hashes))),
        in_train=in_train,
        tokens=audit.length_facts(rows.full_lengths),
        truncated=rows.truncated,
        max_tokens=max_tokens,
        learned=int(rows.targets.sum()),
        silent=silent[:20],
        together=part.together(),
    )
    split = Split(name, part.examples, index, np.zeros(len(rows), np.int64), rows, facts, kept_in=kept_in)
    return replace(split, remarks=_remarks(split, found, len(silent), task))


def _once(part: Part, task: AnswerTask | TextGeneration, chat: Chat, max_tokens: int) -> tuple[Encoded, Path | None]:
    """Encode rows, or find what an earlier run made of the same; what is masked is not kept."""

    def made_of() -> Iterator[str | None]:
        yield from ("rows", rules_of(chat.tokenizer), chat.rules, f"{max_tokens} {_is_one(task, part.examples)}")
        yield f"{task.cut} {task.learn}" if isinstance(task, AnswerTask) else task.documents
        for row in part.examples.rows(part.index):
            yield row["text"]

    if isinstance(task, AnswerTask):
        conversations = (Conversation.of(row["text"]) for row in part.examples.rows(part.index))
        arrays, path = remembered(
            part.size,
            made_of,
            lambda: encode_conversations(conversations, chat, max_tokens, task.cut, task.learn).arrays(),
        )
    elif task.objective == "masked":
        return _documents(part, task, chat, max_tokens), None
    else:
        arrays, path = remembered(part.size, made_of, lambda: _documents(part, task, chat, max_tokens).arrays())
    return Encoded.of(arrays), path


def _documents(part: Part, task: TextGeneration, chat: Chat, max_tokens: int) -> Encoded:
    texts = (row["text"] for row in part.examples.rows(part.index))
    one = _is_one(task, part.examples)
    rows, places = task.encode([texts] if one else ([text] for text in texts), chat.tokenizer, max_tokens)
    return Encoded(rows, places[:, 1 if one else 0])


def _check_silent(part: Part, silent: list[str], max_tokens: int) -> None:
    if len(silent) <= _SILENT_SHARE * len(part.index):
        return
    shown = ", ".join(silent[:5]) + (", ..." if len(silent) > 5 else "")
    raise DataError(
        f"{part.examples.path}: of {len(silent)} of {len(part.index)} rows no token of an answer is left after "
        f"cutting to {max_tokens} tokens: {shown}. Raise data.max_tokens if the model allows it, cut the prompt "
        "instead with task.cut=start, or leave those rows out."
    )


def _remarks(split: Split, found: Encoded, silent: int, task: Any) -> list[str]:
    facts, name, remarks = split.audit, split.name, []
    if facts.dropped.get("empty"):
        count = facts.dropped["empty"]
        remarks.append(f"{name}: {count} rows with an empty question or answer were dropped (data.empty=drop).")
    if facts.truncated:
        remarks.append(
            f"{name}: {facts.truncated} of {facts.rows} rows are longer than {facts.max_tokens} tokens and lost their "
            f"{task.cut}; the longest has {facts.tokens['longest']}. Raise data.max_tokens if the model allows it."
        )
    if name != "train" and facts.rows < FEW:
        remarks.append(f"{name}: only {facts.rows} rows, so its scores and intervals say little.")
    if silent:
        remarks.append(
            f"{name}: {silent} rows were left out, as no token of an answer was left after cutting: "
            f"{', '.join(facts.silent[:5])}."
        )
    if found.merged:
        remarks.append(
            f"{name}: in {found.merged} answers the first token begins inside the prompt, so it is not learned. A chat "
            "template that ends with a line break or a token of its own before the answer avoids it (prompt.chat)."
        )
    if found.single:
        remarks.append(
            f"{name}: {found.single} rows have several answers; an encoder-decoder writes one sequence, so only the "
            "last answer of each is learned and the others are read (task.learn=last means it)."
        )
    if found.spelled:
        remarks.append(
            f"{name}: {found.spelled} rows spell out a special token of the tokenizer inside a message; the model "
            "reads it as a real one. Check those rows."
        )
    return remarks
