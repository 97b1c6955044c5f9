"""Whether what frozen layers give is kept between epochs, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from transformers import PretrainedConfig

from tunesmith.core.errors import RecipeError
from tunesmith.core.files import cache_folder, hash_of
from tunesmith.models.depth import Depth, frozen_blocks, row_keys, undropped_below
from tunesmith.models.layout import ragged
from tunesmith.models.row_store import RowStore
from tunesmith.recipe.schema import TrainingSettings
from tunesmith.training.corpus import Split
from tunesmith.training.processes import ALONE, Processes
from tunesmith.training.trial import Trial

_MIB = 2**20


@contextmanager
def kept_below(
    trials: Sequence[Trial],
    splits: Sequence[Split],
    settings: TrainingSettings,
    model_hash: str,
    say: Callable[[str], None],
    processes: Processes = ALONE,
) -> Iterator[None]:
    """Keep what the blocks below all deltas give for each row, for the passes inside the block.

    Args:
        trials: that train, on one backbone.
        splits: whose rows come again: those trained on and those scored after each epoch.
        settings: of the recipe.
        model_hash: of the frozen weights.
        say: told what is kept, or why nothing is where that was asked for.
        processes: that train together; several keep nothing.
    Raises:
        RecipeError: it was asked for and cannot be done.
    """
    backbone, deltas = trials[0].tuned.backbone, [delta for trial in trials for delta in trial.deltas]
    with nullcontext() if settings.frozen_dropout else undropped_below(backbone, deltas, say):
        depth = _chosen(trials, splits, settings, model_hash, say, processes)
        backbone.below = depth
        try:
            yield
        finally:
            backbone.below = None
            if depth is not None:
                depth.store.close()


def _chosen(
    trials: Sequence[Trial],
    splits: Sequence[Split],
    settings: TrainingSettings,
    model_hash: str,
    say: Callable[[str], None],
    processes: Processes,
) -> Depth | None:
    """Decide, and say it."""
    depth, told = None, ""
    if processes.several:
        told = "rows change their process from epoch to epoch" if settings.cache in ("memory", "disk") else ""
    elif settings.cache != "off":
        depth, told = _depth(trials, splits, settings, model_hash)
    if depth is None and settings.cache in ("memory", "disk"):
        raise RecipeError(f"training.cache={settings.cache}: {told}. Set it to auto or off.")
    if told:
        say(told)
    return depth


def _depth(
    trials: Sequence[Trial], splits: Sequence[Split], settings: TrainingSettings, model_hash: str
) -> tuple[Depth | None, str]:
    """Decide; return what to say about it, nothing where nobody would expect a cache."""
    backbone, asked = trials[0].tuned.backbone, settings.cache != "auto"
    deltas = [delta for trial in trials for delta in trial.deltas]
    if settings.epochs < 2 and len(trials) == 1 and settings.cache != "disk":
        return None, "with one epoch no row comes again" if asked else ""
    if any(trial.regularizing.makes_noise for trial in trials):
        return None, "embedding-noise makes what the blocks read new in every step" if asked else ""
    if mixing := [how.name for trial in trials if (how := trial.synthesizing.inside) is not None]:
        return None, f"{mixing[0]} mixes rows inside the blocks anew in every step" if asked else ""
    blocks, why = frozen_blocks(backbone, deltas)
    if not blocks:
        resting, _ = frozen_blocks(backbone, deltas, training=False)
        if resting and not asked:
            return None, f"what the {len(resting)} frozen blocks below give is not kept between epochs: {why}"
        return None, why if asked else ""
    rows = _rows(splits)
    if rows is None:
        return None, "what the model reads is drawn anew in every epoch" if asked else ""
    dtype = torch.bfloat16 if settings.cache_type == "bfloat16" else next(backbone.model.parameters()).dtype
    size = sum(dict(rows).values()) * backbone.width * dtype.itemsize
    kept = f"what the {len(blocks)} frozen blocks below give for {len(rows):,} rows ({size / _MIB:,.0f} MiB)"
    if settings.cache != "disk" and size > settings.cache_limit * _MIB:
        told = f"{kept} is more than training.cache_limit={settings.cache_limit} MiB and is not kept between epochs"
        return None, told
    folder = cache_folder("frozen") if settings.cache == "disk" else None
    stored = sorted({f"{type(one.data).__name__} {one.dtype}" for one in backbone.model.parameters()})  # or quantised
    shape = f"{len(blocks)} {type(backbone.model).__name__} {_settings_hash(backbone.model)}"
    owner = f"{model_hash} {shape} {stored} {settings.precision}"
    store = RowStore(rows, backbone.width, dtype, folder, owner)
    depth = Depth(backbone, blocks, [delta.name for delta in deltas], store)
    there = len(rows) - len(store.missing)
    again = f"; {there:,} rows are there from an earlier run" if there else ""
    return depth, f"{kept} is kept {'in ' + str(folder) if folder else 'in memory'} for later epochs{again}"


def _settings_hash(model: nn.Module) -> str:
    """Hash what a model is set to beside its weights, wherever its folder lies."""
    config = getattr(model, "config", None)
    values = config.to_dict() if isinstance(config, PretrainedConfig) else {}
    return hash_of(sorted((key, repr(value)) for key, value in values.items() if key != "_name_or_path"))


def _rows(splits: Sequence[Split]) -> list[tuple[bytes, int]] | None:
    """Return a key and the length of every different row; None where a row is not the same in every epoch."""
    found: dict[bytes, int] = {}
    for split in splits:
        if split.tokens.varies:
            return None
        for number in range(len(split.tokens)):
            ids = split.tokens.seen(number, 0).ids
            found[row_keys(ragged([ids.tolist()]))[0]] = len(ids)
    return list(found.items())
