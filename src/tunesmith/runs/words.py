"""A soft prompt as words: the tokens of the vocabulary that its virtual tokens are nearest to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunesmith.core.errors import CompatibilityError, RecipeError
from tunesmith.models.soft_prompts import TokenPrompt
from tunesmith.runs.run import Run


@dataclass(frozen=True)
class Near:
    """A token of the vocabulary.

    Args:
        word: as the tokenizer writes it.
        angle: cosine distance to the virtual token, 0 for the same direction.
        distance: Euclidean, over the mean length of the vocabulary's embeddings.
    """

    word: str
    angle: float
    distance: float


def prompt_words(run: Run | str | Path, count: int = 5) -> list[list[Near]]:
    """Show a soft prompt as the words that its virtual tokens are nearest to.

    Args:
        run: of prompt-tuning, p-tuning or another method of virtual tokens, or its folder.
        count: so many words per virtual token. [count]
    Returns:
        Per virtual token, the nearest first, by angle. Far ones say that the prompt is no text: look at the distances.
    Raises:
        CompatibilityError: the run has no virtual tokens.
        RecipeError: no word is asked for.
    """
    if count < 1:
        raise RecipeError(f"count={count}: at least 1 word per virtual token.")
    run = run if isinstance(run, Run) else Run.load(run)
    session, tuned = run.opened()
    prompt = tuned.delta.prompt
    if not isinstance(prompt, TokenPrompt):
        what = "a prefix is keys and values inside the layers, not embeddings" if prompt is not None else "it has none"
        raise CompatibilityError(
            f"{run.folder} was tuned by {run.recipe.method.name}; {what}, so no word is near. Give a run of "
            "prompt-tuning or p-tuning."
        )
    table = tuned.backbone.seams.embedding_weight.detach().float().cpu()
    return named(prompt.flat().detach().float().cpu(), table, session.tokenizer, count)


@torch.no_grad()
def named(virtual: Tensor, table: Tensor, tokenizer: Any, count: int) -> list[list[Near]]:
    """Name the rows of an embedding table that vectors are nearest to.

    Args:
        virtual: (P, D).
        table: (V, D).
        tokenizer: names the rows.
        count: per vector. [count]
    Returns:
        Per vector, the nearest first, by angle.
    """
    length = table.norm(dim=1).mean()
    normal = torch.nn.functional.normalize
    angles = 1 - normal(virtual, dim=1) @ normal(table, dim=1).t()  # (P, V)
    found = []
    for vector, row in zip(virtual, angles, strict=True):
        ids = row.topk(min(count, len(table)), largest=False).indices.tolist()
        words = tokenizer.convert_ids_to_tokens(ids)
        far = ((vector - table[ids]).norm(dim=1) / length).tolist()
        found.append([Near(str(w), float(row[i].clamp_min(0)), f) for w, i, f in zip(words, ids, far, strict=True)])
    return found
