"""Combine trained LoRA deltas into one, and measure what that lost.

`linear`, `ties`, `dare` and `magnitude` work on A and B by themselves when no rank is given: cheap, but a product of
sums is not the sum of products. With a rank they work on the weight changes, and the result is cut to that rank by
singular values. `svd` always does, and is the best approximation of the weighted sum that the rank allows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunesmith.core.errors import CheckpointError, CompatibilityError, RecipeError, unknown
from tunesmith.methods.base import PREFIX, LayerMethod, PeftFolder
from tunesmith.methods.store import read_folder, read_method
from tunesmith.models.approximating import small_svd
from tunesmith.models.delta import Delta

PAIRS = (("lora_A.weight", "lora_B.weight"), ("lora_embedding_A", "lora_embedding_B"))
_OTHER_FORMS = ("use_dora", "lora_bias", "target_parameters", "use_qalora", "layer_replication")
_OTHER_STARTS = ("pissa", "olora", "corda", "lora_ga", "loftq")


@dataclass(frozen=True)
class Pair:
    """A and B of one layer.

    Args:
        names: what PEFT calls them below the layer.
        down: A, (rank, in), or kernels.
        up: B, (out, rank), or kernels of size one.
        scale: of their product.
    """

    names: tuple[str, str]
    down: Tensor
    up: Tensor
    scale: float

    @property
    def change(self) -> Tensor:
        """What it adds to W, (out, in), float64."""
        return self.scale * (self.up.double().flatten(1) @ self.down.double().flatten(1))


@dataclass(frozen=True)
class LoraTensors:
    """A LoRA delta without its model.

    Args:
        where: its folder or name, for errors.
        config: content of adapter_config.json.
        pairs: per layer.
        rest: other saved tensors, by PEFT's names.
    """

    where: str
    config: Mapping[str, Any]
    pairs: dict[str, Pair]
    rest: dict[str, Tensor]


@dataclass(frozen=True)
class Combined:
    """One delta made of several.

    Args:
        config: content of adapter_config.json.
        tensors: by PEFT's names.
        facts: what was lost, as plain values.
    """

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """How to combine.

    Args:
        how: a key of HOW.
        density: share of the numbers that stay. [fraction]
        rank: of the result; None keeps A and B apart.
        generator: draws what DARE drops.
    """

    how: str
    density: float
    rank: int | None
    generator: torch.Generator


# Reading ------------------------------------------------------------------------------------------------------


def read_lora(source: str | Path | Delta) -> LoraTensors:
    """Take A and B out of a LoRA delta.

    Args:
        source: a delta folder, ours or PEFT's, or an attached delta.
    Returns:
        The delta without its model.
    Raises:
        CompatibilityError: another method, or a form of LoRA that is more than a product.
    """
    if isinstance(source, Delta):
        return _attached(source)
    folder = read_folder(Path(source))
    return lora_tensors(folder)


def lora_tensors(folder: PeftFolder) -> LoraTensors:
    """Take A and B out of a PEFT folder.

    Args:
        folder: as read.
    Returns:
        The delta without its model.
    Raises:
        CompatibilityError: another method, or a form of LoRA that is more than a product.
    """
    config, where = folder.config, str(Path(folder.where).parent)
    if config.get("peft_type") != "LORA":
        method = read_method(Path(where))
        layers = method.can_merge and isinstance(method, LayerMethod)
        raise _no_lora(where, f"holds '{method.name}'", mendable=layers)
    for option in _OTHER_FORMS:
        if config.get(option):
            raise _no_lora(where, f"has '{option}'")
    if str(config.get("init_lora_weights", True)).lower().startswith(_OTHER_STARTS):
        raise _no_lora(where, f"changed the base weights at its start ({config['init_lora_weights']})")
    pairs, rest = {}, dict(folder.tensors)
    for names in PAIRS:
        for path in folder.modules(names[:1]):
            down, up = (rest.pop(f"{PREFIX}{path}.{name}", None) for name in names)
            if down is None or up is None:
                raise CheckpointError(f"{where} lacks A or B of '{path}'. Restore its weights.")
            pairs[path] = Pair(names, down, up, scale_of(config, path, len(down)))
    if not pairs:
        raise _no_lora(where, "has no lora_A")
    frozen = {f"{PREFIX}{path}.base_layer.weight" for path in pairs}  # PEFT saves tables that it targets besides
    return LoraTensors(where, config, pairs, {name: found for name, found in rest.items() if name not in frozen})


def scale_of(config: Mapping[str, Any], path: str, rank: int) -> float:
    """Return what PEFT multiplies a layer's product by.

    Args:
        config: of the LoRA.
        path: of the layer.
        rank: of its A.
    Returns:
        alpha / rank, or alpha / sqrt(rank) when rank-stabilised.
    """
    alpha = float(config.get("lora_alpha", 8))
    for pattern, own in (config.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", path):
            alpha = float(own)
            break
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _attached(delta: Delta) -> LoraTensors:
    where = f"delta '{delta.name}'"
    known = {name for names in PAIRS for name in names}
    pairs = {}
    for path, patch in delta.patches.items():
        names = [name for name, _ in patch.named_parameters()]
        if not set(names) <= known or len(names) != 2:
            raise _no_lora(where, f"has {', '.join(names)} at '{path}'")
        down, up, scale = patch.product(delta.seams.linear[path])  # type: ignore[operator]
        pairs[path] = Pair((names[0], names[1]), down.detach().cpu(), up.detach().cpu(), float(scale))
    if not pairs or delta.prompt is not None:
        raise _no_lora(where, "has no lora_A", mendable=bool(delta.patches) and delta.prompt is None)
    config = {
        "base_model_name_or_path": getattr(getattr(delta.seams.model, "config", None), "_name_or_path", "") or "",
        "fan_in_fan_out": any(delta.seams.linear[path].stores_transposed for path in pairs),
        "modules_to_save": list(dict.fromkeys(name.rpartition(".")[0] for name in delta.copies if name in delta.alone)),
    }
    biases = [name.removesuffix(".bias") for name in delta.copies if name not in delta.alone]
    if biases:
        config["bias"] = "lora_only" if all(path in pairs for path in biases) else "all"
    rest = {
        PREFIX + (f"{path}.base_layer.bias" if (path := name.removesuffix(".bias")) in pairs else name): copy
        for name, copy in delta.state().items()
        if name in delta.copies
    }
    return LoraTensors(where, config, pairs, rest)


def _no_lora(where: str, why: str, mendable: bool = True) -> CompatibilityError:
    turn = "Turn it into one first with `tunesmith convert FOLDER --to peft-lora`."
    never = "It is no change of linear maps and cannot become one; `tunesmith mix` combines runs of any method."
    advice = turn if mendable else never
    return CompatibilityError(f"{where} {why}: only plain LoRA deltas (A and B at linear maps) serve here. {advice}")


# Combining ----------------------------------------------------------------------------------------------------


def combine(
    sources: Sequence[str | Path | Delta],
    weights: Sequence[float],
    how: str = "svd",
    density: float | None = None,
    rank: int | None = None,
    seed: int = 0,
) -> Combined:
    """Combine LoRA deltas into one.

    Args:
        sources: delta folders or attached deltas, all of one base model.
        weights: one per delta, of any sign.
        how: linear, svd, ties, dare or magnitude.
        density: share of the numbers that stay under ties, dare and magnitude; 0.5 when None. [fraction]
        rank: of the result; see the module. None: that of the deltas.
        seed: of what DARE drops.
    Returns:
        The delta, with its errors against the exact weighted sum of weight changes.
    Raises:
        CompatibilityError: deltas that do not go together.
        RecipeError: a setting outside its bounds.
    """
    _check(sources, weights, how, density, rank)
    deltas = [read_lora(source) for source in sources]
    rest = _rest(deltas)
    plan = Recipe(how, 0.5 if density is None else density, rank, torch.Generator().manual_seed(seed))
    if how == "svd" and rank is None:
        widest = max(len(pair.down) for delta in deltas for pair in delta.pairs.values())
        plan = Recipe(how, 1.0, widest, plan.generator)
    tensors: dict[str, Tensor] = {}
    losses, kept = dict[str, float](), list[float]()
    for path in sorted({path for delta in deltas for path in delta.pairs}):  # the seed's draws follow this order
        parts = [(delta.pairs[path], weight) for delta, weight in zip(deltas, weights, strict=True)
                 if path in delta.pairs]  # fmt: skip
        down, up, energy = _layer(path, parts, plan)
        pair, kind = parts[0][0], parts[0][0].down
        losses[path] = _loss(down, up, parts)
        kept.append(energy)
        for name, factor in zip(pair.names, (down, up), strict=True):
            tensors[f"{PREFIX}{path}.{name}"] = factor.to(kind.dtype)
    both = [path for path in map(_path, tensors) if f"{PREFIX}{path}.weight" in rest]
    if both:
        raise CompatibilityError(
            f"one delta trains '{both[0]}' whole, which another adapts with A and B, so they cannot be one. Train them "
            "with the same modules_to_save, or leave the layer out of one."
        )
    config = _config(deltas, tensors, rest)
    return Combined(config, {**tensors, **rest}, _facts(plan, len(deltas), config["r"], losses, kept))


def _check(sources: Sequence[Any], weights: Sequence[float], how: str, density: float | None, rank: int | None) -> None:
    if how not in HOW:
        raise RecipeError(unknown("way to merge deltas", how, HOW))
    if not sources or len(sources) != len(weights):
        raise RecipeError(f"{len(sources)} deltas and {len(weights)} weights were given; give one weight per delta.")
    if not all(map(math.isfinite, weights)):
        raise RecipeError(f"weights {list(weights)}: each must be a number.")
    if not any(weights):
        raise RecipeError(
            f"weights {list(weights)}: all are 0, so nothing would be left. Give at least one that is not."
        )
    if density is not None and not 0 < density <= 1:
        raise RecipeError(f"density={density}: it is the share of the numbers that stay; 0 < density <= 1.")
    if density is not None and how in ("linear", "svd"):
        raise RecipeError(f"density={density} does nothing under '{how}'; it belongs to ties, dare and magnitude.")
    if rank is not None and rank < 1:
        raise RecipeError(f"rank={rank}: at least 1.")


def _rest(deltas: Sequence[LoraTensors]) -> dict[str, Tensor]:
    """Return the tensors beside A and B of the one delta that has some."""
    having = [delta for delta in deltas if delta.rest]
    if len(having) > 1:
        raise CompatibilityError(
            f"{having[0].where} and {having[1].where} both train modules or biases whole (for example "
            f"'{next(iter(having[0].rest))}'), and two of those cannot be one. Train them without modules_to_save."
        )
    return dict(having[0].rest) if having else {}


def _layer(path: str, parts: Sequence[tuple[Pair, float]], plan: Recipe) -> tuple[Tensor, Tensor, float]:
    """Combine one layer into A and B of scale 1, and the share of the wanted change's energy that they keep."""
    shapes = {(pair.down.shape[1:], pair.up.shape[:1]) for pair, _ in parts}
    if len(shapes) > 1:
        raise CompatibilityError(f"'{path}' has other widths in different deltas: they belong to different models.")
    if plan.rank is None:
        return (*_factors(path, parts, plan), 1.0)
    if plan.how == "svd":
        left, right = _stacked(parts)
    else:
        weights = [weight for _, weight in parts]
        wanted = HOW[plan.how]([pair.change for pair, _ in parts], weights, plan)
        left, right = wanted, torch.eye(wanted.shape[1], dtype=wanted.dtype)
    return cut(left, right, plan.rank, parts[0][0])


def _factors(path: str, parts: Sequence[tuple[Pair, float]], plan: Recipe) -> tuple[Tensor, Tensor]:
    """Combine A with A and B with B; each takes the root of weight times scale, A its sign."""
    if len({pair.down.shape for pair, _ in parts}) > 1:
        ranks = sorted({len(pair.down) for pair, _ in parts})
        raise CompatibilityError(
            f"'{path}' has ranks {', '.join(map(str, ranks))} in different deltas, so A and B cannot be combined "
            "number by number. Give a rank, or use how='svd'."
        )
    total = [weight * pair.scale for pair, weight in parts]
    roots = [math.sqrt(abs(value)) for value in total]
    signed = [math.copysign(root, value) for root, value in zip(roots, total, strict=True)]
    combined = HOW[plan.how]
    down = combined([pair.down.double() for pair, _ in parts], signed, plan)
    return down, combined([pair.up.double() for pair, _ in parts], roots, plan)


def _stacked(parts: Sequence[tuple[Pair, float]]) -> tuple[Tensor, Tensor]:
    """Return two narrow matrices whose product is the exact weighted sum: (out, ranks) and (ranks, in)."""
    ups = [weight * pair.scale * pair.up.double().flatten(1) for pair, weight in parts]
    return torch.cat(ups, 1), torch.cat([pair.down.double().flatten(1) for pair, _ in parts], 0)


def cut(left: Tensor, right: Tensor, rank: int, like: Pair) -> tuple[Tensor, Tensor, float]:
    """Approximate a product of two matrices by one of lower rank, as well as can be.

    Args:
        left: (out, any).
        right: (any, in).
        rank: of the approximation; filled with zeros where the product has less.
        like: gives the shapes of kernels.
    Returns:
        A, B, and the share of the product's squared norm that they keep.
    Source: Eckart and Young 1936.
    """
    u, values, v = small_svd(left, right)
    width = min(rank, len(values))
    down, up = right.new_zeros(rank, right.shape[1]), left.new_zeros(left.shape[0], rank)
    down[:width], up[:, :width] = v[:width], u[:, :width] * values[:width]
    energy = values.square()
    kept = float(energy[:width].sum() / energy.sum()) if energy.sum() > 0 else 1.0
    return down.reshape(rank, *like.down.shape[1:]), up.reshape(like.up.shape[0], rank, *like.up.shape[2:]), kept


def _loss(down: Tensor, up: Tensor, parts: Sequence[tuple[Pair, float]]) -> float:
    """Return the norm of the error over the norm of the exact weighted sum, by narrow matrices only."""
    left, right = _stacked(parts)
    wanted = small_svd(left, right)[1].norm()
    both = torch.cat([left, -up.flatten(1)], 1), torch.cat([right, down.flatten(1)], 0)
    error = small_svd(*both)[1].norm()
    return float(error / wanted) if wanted > 0 else float(error > 0)


def _config(deltas: Sequence[LoraTensors], tensors: Mapping[str, Tensor], rest: Mapping[str, Tensor]) -> dict[str, Any]:
    first = deltas[0].config
    bases = {str(delta.config.get("base_model_name_or_path") or "") for delta in deltas} - {""}
    if len(bases) > 1:
        raise CompatibilityError(f"the deltas were made for different base models: {', '.join(sorted(bases))}.")
    own = next((delta.config for delta in deltas if delta.rest), {})
    down = [name for name in tensors if name.endswith(tuple(f".{names[0]}" for names in PAIRS))]
    ranks = {name: len(tensors[name]) for name in down}
    rank = max(ranks.values())
    paths = {_path(name): own_rank for name, own_rank in ranks.items()}
    return lora_config(
        {
            "base_model_name_or_path": next(iter(bases), ""),
            "task_type": first.get("task_type"),
            "fan_in_fan_out": any(delta.config.get("fan_in_fan_out") for delta in deltas),
            "modules_to_save": own.get("modules_to_save") if rest else None,
            "bias": own.get("bias", "none") if rest else "none",
        },
        paths,
        rank,
    )


def lora_config(shared: Mapping[str, Any], ranks: Mapping[str, int], rank: int) -> dict[str, Any]:
    """Word a LoRA of scale 1 as PEFT's adapter_config.json, without keys that say nothing.

    Args:
        shared: further keys; empty ones are left out.
        ranks: per adapted layer.
        rank: the usual one.
    Returns:
        The keys of the file.
    """
    others = {f"^{re.escape(path)}": own for path, own in ranks.items() if own != rank}
    config = {
        "peft_type": "LORA",
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "target_modules": sorted(ranks),
        "rank_pattern": others,
        "alpha_pattern": others,
        **shared,
    }
    return {key: value for key, value in config.items() if value not in (None, {}, "none", False)}


def _path(name: str) -> str:
    for leaf, _ in PAIRS:
        name = name.removesuffix(f".{leaf}")
    return name.removeprefix(PREFIX)


def _facts(plan: Recipe, count: int, rank: int, losses: Mapping[str, float], kept: Sequence[float]) -> dict[str, Any]:
    worst = max(losses, key=losses.__getitem__)
    facts = {
        "how": plan.how,
        "deltas": count,
        "layers": len(losses),
        "rank": rank,
        "largest_relative_error": losses[worst],
        "mean_relative_error": sum(losses.values()) / len(losses),
        "worst_layer": worst,
    }
    if plan.rank is not None:
        facts |= {"smallest_kept_energy": min(kept), "mean_kept_energy": sum(kept) / len(kept)}
    return facts


# The ways -----------------------------------------------------------------------------------------------------


def _linear(tensors: Sequence[Tensor], weights: Sequence[float], plan: Recipe) -> Tensor:
    """Weighted sum."""
    return sum((weight * tensor for weight, tensor in zip(weights, tensors, strict=True)), torch.zeros_like(tensors[0]))


def _trimmed(tensor: Tensor, density: float) -> Tensor:
    """Keep the numbers of largest magnitude."""
    keep = tensor.abs().flatten().topk(int(density * tensor.numel())).indices
    mask = torch.zeros(tensor.numel(), dtype=tensor.dtype).index_fill_(0, keep, 1.0)
    return tensor * mask.view_as(tensor)


def _magnitude(tensors: Sequence[Tensor], weights: Sequence[float], plan: Recipe) -> Tensor:
    """Weighted sum of what is largest in each."""
    return _linear([_trimmed(tensor, plan.density) for tensor in tensors], weights, plan)


def _dare(tensors: Sequence[Tensor], weights: Sequence[float], plan: Recipe) -> Tensor:
    """Drop numbers at random and rescale the others, so that the mean stays.

    Source: Yu et al. 2023, arXiv:2311.03099, section 3.1.
    """
    if plan.density >= 1:
        return _linear(tensors, weights, plan)
    share = [torch.full_like(tensor, plan.density) for tensor in tensors]
    masks = [torch.bernoulli(odds, generator=plan.generator) for odds in share]
    kept = [tensor * mask / plan.density for tensor, mask in zip(tensors, masks, strict=True)]
    return _linear(kept, weights, plan)


def _ties(tensors: Sequence[Tensor], weights: Sequence[float], plan: Recipe) -> Tensor:
    """Keep what is largest, settle each number's sign by the larger sum, and average those that agree with it.

    Source: Yadav et al. 2023, arXiv:2306.01708, algorithm 1. Differs: the average is over weighted numbers, as in PEFT.
    """
    kept = torch.stack([_trimmed(tensor, plan.density) for tensor in tensors])
    sign = torch.where(kept.sum(0) >= 0, 1.0, -1.0).to(kept.dtype)
    agree = kept.sign() == sign
    by = torch.tensor(list(weights), dtype=kept.dtype).view(-1, *([1] * tensors[0].dim()))
    return (kept * by * agree).sum(0) / agree.sum(0).clamp(min=1)


HOW: dict[str, Callable[[Sequence[Tensor], Sequence[float], Recipe], Tensor]] = {
    "linear": _linear,
    "svd": _linear,
    "ties": _ties,
    "dare": _dare,
    "magnitude": _magnitude,
}
