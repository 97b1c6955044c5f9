"""New tokens for a model: ids in its tokenizer, rows in its tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from tunesmith.core.errors import CompatibilityError, TargetError
from tunesmith.models.seams import is_open


@torch.no_grad()
def add_tokens(model: nn.Module, tokenizer: Any, tokens: Sequence[str]) -> list[int]:
    """Teach a model and its tokenizer new tokens; their rows start at the mean of the old ones.

    The same call gives the same rows, so a delta that trained them fits the base model again after this call.

    Args:
        model: a transformers model, not yet opened at its seams.
        tokenizer: of the model; the tokens are added to it.
        tokens: texts; those that are known already keep id and row.
    Returns:
        The id of each token, in their order.
    Raises:
        TargetError: an empty text, none at all, or a text in the place of a list.
        CompatibilityError: the model has no table over tokens, or is open at its seams.
    """
    if isinstance(tokens, str):
        raise TargetError(f"tokens: {tokens!r} is one text, whose characters would each be a token; give a list of it.")
    if not tokens or not all(tokens):
        raise TargetError(f"tokens: {list(tokens)!r} holds no text for a token; give at least one, none empty.")
    if not isinstance(_table(model), nn.Embedding):
        raise CompatibilityError(f"{type(model).__name__} has no table of input embeddings, so it takes no new tokens.")
    if is_open(model):
        raise CompatibilityError(
            "add tokens before the first delta is attached: the tables are about to change. To take all deltas off: "
            "tunesmith.models.seams.open_seams(model).close()."
        )
    known = len(tokenizer)
    tokenizer.add_tokens([token for token in dict.fromkeys(tokens) if token not in tokenizer.get_vocab()])
    if len(tokenizer) > known:
        _grow(model, known, len(tokenizer))
    return [int(tokenizer.get_vocab()[token]) for token in tokens]


def _table(model: nn.Module) -> Any:
    try:
        return model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None


def _grow(model: nn.Module, known: int, wanted: int) -> None:
    """Give the ids from `known` on the mean of the rows before them; a table may have had spare rows for them."""
    if wanted > len(_table(model).weight):
        model.resize_token_embeddings(wanted, mean_resizing=False)  # type: ignore[operator]
    output = model.get_output_embeddings()  # type: ignore[operator]
    for module in [_table(model), *([] if output is None else [output])]:
        for rows in (module.weight, getattr(module, "bias", None)):
            if rows is not None:
                rows[known:wanted] = rows[:known].mean(0)
