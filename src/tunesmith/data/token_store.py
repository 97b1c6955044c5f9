"""Token rows that were made before: kept on disk, found again by what they were made of."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.errors import CheckpointError
from tunesmith.core.files import cache_folder, write_atomic
from tunesmith.data.tokens import RowMaker, TokenRows, tokenize

_FORM = "1"  # of what is kept; another number where the same texts would give other arrays
_LARGE = 2**20  # of texts, in bytes: less is tokenised in about a second
_LIMIT = 2 * 2**30  # of all that is kept, in bytes

Arrays = Mapping[str, np.ndarray[Any, Any]]

_log = logging.getLogger("tunesmith")


def rules_of(tokenizer: Any) -> str | None:
    """Say by what rules a tokenizer works.

    Args:
        tokenizer: a transformers tokenizer.
    Returns:
        Its vocabulary, rules and special tokens as a text; None where it cannot say them.
    """
    if not tokenizer.is_fast:
        return None
    import tokenizers
    import transformers

    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    del rules["truncation"], rules["padding"]  # of the last call
    facts = {
        "versions": [tokenizers.__version__, transformers.__version__],
        "kind": type(tokenizer).__name__,
        "cuts": tokenizer.truncation_side,
        "splits": tokenizer.split_special_tokens,
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
    }
    if hasattr(tokenizer, "tgt_lang"):  # mBART's and NLLB's kin mark answers with it
        facts["languages"] = [tokenizer.src_lang, tokenizer.tgt_lang]
    return json.dumps([facts, rules])


def remembered(
    size: int, made_of: Callable[[], Iterable[str | None]], make: Callable[[], Arrays]
) -> tuple[Arrays, Path | None]:
    """Give arrays back that an earlier run made of the same, or make them and keep them.

    What is little is made anew. When all that is kept is more than 2 GiB, what was not used for longest goes.

    Args:
        size: of the texts. [bytes]
        made_of: all that the arrays depend on; a None among it says that they cannot be kept.
        make: makes the arrays.
    Returns:
        The arrays, and the file that they come from, None where they were made now.
    """
    name = _name(made_of()) if size >= _LARGE else None
    if name is None:
        return make(), None
    path = cache_folder("tokens") / f"{name}.npz"
    found = _read(path)
    if found is not None:
        return found, path
    arrays = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda temporary: _write(temporary, arrays))
        _prune(path.parent)
    except (OSError, CheckpointError) as error:
        _log.warning("the tokens are not kept for later runs: %s", error)
    return arrays, None


def tokenize_once(
    tokenizer: Any, texts: Callable[[], Iterable[str]], size: int, max_tokens: int
) -> tuple[TokenRows, Path | None]:
    """Turn texts into token ids, or find those that an earlier run made of the same texts.

    Args:
        tokenizer: a transformers tokenizer.
        texts: gives them; called twice where they are many.
        size: of the texts. [bytes]
        max_tokens: longest row. [tokens]
    Returns:
        The rows as `tokenize` gives them, and the file they were read from.
    Raises:
        DataError: a text without any token.
    """
    if isinstance(tokenizer, RowMaker):
        return tokenizer.rows(texts()), None

    def made_of() -> Iterable[str | None]:
        yield from ("texts", rules_of(tokenizer), str(max_tokens))
        yield from texts()

    def make() -> Arrays:
        rows = tokenize(tokenizer, texts(), max_tokens)
        return {"ids": rows.ids, "ends": rows.ends, "full_lengths": rows.full_lengths}

    arrays, path = remembered(size, made_of, make)
    return TokenRows(**arrays), path


def _name(parts: Iterable[str | None]) -> str | None:
    digest = hashlib.sha256(_FORM.encode())
    for part in parts:
        if part is None:
            return None
        content = part.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()[:40]


def _read(path: Path) -> Arrays | None:
    """Map what is there; a damaged file is as good as none and is written anew."""
    try:
        with zipfile.ZipFile(path) as file:
            if file.testzip() is not None:
                return None
            found = {info.filename.removesuffix(".npy"): _mapped(path, info) for info in file.infolist()}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    with suppress(OSError):  # a folder that others may only read serves as well
        os.utime(path)
    return found


def _mapped(path: Path, info: zipfile.ZipInfo) -> np.ndarray[Any, Any]:
    """Map one array of an archive whose entries are not compressed, so that it need not fit into memory."""
    with open(path, "rb") as file:
        file.seek(info.header_offset + 26)  # the lengths of the name and of what follows it, then both, then the array
        name, extra = struct.unpack("<HH", file.read(4))
        file.seek(name + extra, os.SEEK_CUR)
        version = np.lib.format.read_magic(file)
        assert version == (1, 0)  # as `_write` leaves it
        shape, _, kind = np.lib.format.read_array_header_1_0(file)
        place = file.tell()
    return np.memmap(path, kind, "r", place, shape).view(np.ndarray) if shape[0] else np.zeros(shape, kind)


def _write(path: Path, arrays: Arrays) -> None:
    with open(path, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _prune(folder: Path) -> None:
    """Remove what was not used for longest until the rest is within the limit; other runs may do the same."""
    files = []
    for path in folder.iterdir():
        try:
            facts = path.stat()
        except FileNotFoundError:
            continue
        files.append((facts.st_mtime, facts.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files)[:-1]:
        if total <= _LIMIT:
            return
        path.unlink(missing_ok=True)
        total -= size
