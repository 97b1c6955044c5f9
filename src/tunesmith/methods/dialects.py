"""Delta folders of other libraries: written from ours or PEFT's, and read where that is simple.

peft        our own layout, without what Tunesmith adds
peft-lora   any mergeable change of linear maps as plain LoRA, by singular values
torchtune   A and B of Llama-like decoders by torchtune's names, rows of q and k in its order for rotary positions
adapterhub  A and B of BERT-like encoders by the names of AdapterHub's `adapters`

Every reading gives PEFT's layout; every writing starts from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig

from tunesmith.core.errors import CheckpointError, CompatibilityError, RecipeError, TunesmithError, unknown
from tunesmith.core.files import read_json
from tunesmith.methods.base import PREFIX, LayerMethod, PeftFolder
from tunesmith.methods.store import (
    CONFIG,
    LEGACY,
    METHOD,
    WEIGHTS,
    load_delta,
    open_base,
    read_folder,
    read_method,
    read_weights,
)
from tunesmith.models.approximating import Approximation, approximate
from tunesmith.models.linear import EmbeddingSeam
from tunesmith.models.loading import locate
from tunesmith.models.rotary import HeadRows
from tunesmith.models.seams import Seams, open_seams

_HUB_WEIGHTS, _HUB_LEGACY = "adapter.safetensors", "pytorch_adapter.bin"
_PLAIN = {"peft_type": "LORA", "inference_mode": True}
_TUNE_LEGACY = "adapter_model.pt"  # torchtune writes pickles; it reads safetensors too
_HUB_VERSION = "adapters.1.2.0"  # 1.0 and older read alpha as the scale itself
_OUTSIDE = "outside"  # key of our own: what names in the model begin with and torchtune's do not


@dataclass(frozen=True)
class Wanted:
    """What a conversion is asked for.

    Args:
        model: the base model, or a folder or name of it; by the delta's config when None.
        rank: of peft-lora; the smallest that stays within the tolerance when None.
        tolerance: largest relative error of a layer's weight change under peft-lora.
    """

    model: nn.Module | str | None = None
    rank: int | None = None
    tolerance: float = 1e-2


@dataclass(frozen=True)
class Converted:
    """A delta in another dialect.

    Args:
        config: content of its adapter_config.json.
        tensors: by its names.
        weights: name of the weights file.
        facts: plain values for the user.
    """

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    weights: str = WEIGHTS
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plain:
    """A LoRA that is the same everywhere: one rank, one scale, nothing besides.

    Args:
        rank: of every layer.
        scale: of every product.
        pairs: A and B per layer.
        folder: it comes from.
    """

    rank: int
    scale: float
    pairs: dict[str, tuple[Tensor, Tensor]]
    folder: PeftFolder


def convert_delta(folder: Path, to: str, wanted: Wanted) -> Converted:
    """Word a delta folder in another dialect.

    Args:
        folder: ours, PEFT's, torchtune's or AdapterHub's.
        to: a key of TARGETS.
        wanted: model and bounds.
    Returns:
        What to write.
    Raises:
        RecipeError: no such target.
        CompatibilityError: the target has no form for this delta; the message names the targets that have.
        CheckpointError: the folder is damaged.
    """
    if to not in TARGETS:
        raise RecipeError(unknown("target", to, TARGETS))
    source = read_dialect(folder, wanted.model)
    try:
        found = TARGETS[to](folder, source, wanted)
    except CompatibilityError as error:
        if to == "peft-lora":
            raise
        others = _others(folder, source, wanted, to)
        raise CompatibilityError(f"{folder} cannot become '{to}': {error} {others}") from None
    facts = {"to": to, "tensors": len(found.tensors), **found.facts}
    return Converted(found.config, found.tensors, found.weights, facts)


def _others(folder: Path, source: PeftFolder, wanted: Wanted, to: str) -> str:
    """Name the targets that do work."""
    possible = []
    for name, target in TARGETS.items():
        try:
            if name == "peft-lora":
                _check_mergeable(folder, source)
            elif name != to:
                target(folder, source, wanted)
            if name != to:
                possible.append(name)
        except TunesmithError:
            continue
    return f"Targets that work for it: {', '.join(possible) or 'none'}."


# Reading ------------------------------------------------------------------------------------------------------


def read_dialect(folder: Path, model: nn.Module | str | None = None) -> PeftFolder:
    """Read a delta folder of any dialect.

    Args:
        folder: ours, PEFT's, torchtune's or AdapterHub's.
        model: the base model or its folder, for torchtune's order of rows; by the config when None.
    Returns:
        It in PEFT's layout.
    Raises:
        CheckpointError: missing or damaged.
        CompatibilityError: a form that has no equal in PEFT's layout.
    """
    if not folder.is_dir():
        raise CheckpointError(f"there is no delta folder {folder}.")
    config = read_json(folder / CONFIG, dict)
    if "peft_type" not in config and isinstance(config.get("config"), dict):
        return _from_adapterhub(folder, config)
    peft = any((folder / name).is_file() for name in (WEIGHTS, LEGACY))
    if "peft_type" not in config or ((folder / _TUNE_LEGACY).is_file() and not peft):
        return _from_torchtune(folder, config, model)
    return read_folder(folder)


def _from_torchtune(folder: Path, config: Mapping[str, Any], model: nn.Module | str | None) -> PeftFolder:
    tensors = read_weights(folder, WEIGHTS, _TUNE_LEGACY)
    heads = HeadRows.of(_tune_model(model, config))
    back = {theirs: ours for ours, theirs in _TUNE_NAMES.items()}
    outside = str(config.get(_OUTSIDE, "model."))
    found = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(?:layers\.(\d+)\.)?([\w.]+)\.lora_([ab])\.weight", name)
        if match is None or match[2] not in back:
            raise CompatibilityError(f"{folder}: '{name}' is none of torchtune's names for A and B.")
        ours = f"{outside}layers.{match[1]}.{back[match[2]]}" if match[1] else back[match[2]]
        tensor = heads.to_halves(ours, tensor) if match[3] == "b" else tensor
        found[f"{PREFIX}{ours}.lora_{match[3].upper()}.weight"] = tensor.contiguous()
    ours_config = {
        **_PLAIN,
        "r": int(_needed(folder, config, "r")),
        "lora_alpha": _needed(folder, config, "lora_alpha"),
        "target_modules": sorted({_module(name) for name in found}),
        "base_model_name_or_path": config.get("base_model_name_or_path", ""),
    }
    return PeftFolder(ours_config, found, str(folder / CONFIG))


def _from_adapterhub(folder: Path, config: Mapping[str, Any]) -> PeftFolder:
    inner, name = _needed(folder, config, "config"), str(config.get("name", ""))
    plain = inner.get("architecture") == "lora" and inner.get("composition_mode", "add") == "add"
    if not plain or inner.get("use_gating"):
        raise CompatibilityError(
            f"{folder} holds '{inner.get('architecture')}' of AdapterHub; only plain LoRA is read."
        )
    found = {}
    for key, tensor in read_weights(folder, _HUB_WEIGHTS, _HUB_LEGACY).items():
        match = re.fullmatch(rf"(.+)\.loras\.{re.escape(name)}\.(lora_[AB])", key)
        if match is None:
            raise CompatibilityError(f"{folder}: '{key}' is none of AdapterHub's names for A and B.")
        found[f"{PREFIX}{match[1]}.{match[2]}.weight"] = tensor
    version = re.match(r"adapters\.(\d+)\.(\d+)", str(config.get("version", "")))
    before = version is not None and (int(version[1]), int(version[2])) < (1, 1)
    ours = {
        **_PLAIN,
        "r": int(_needed(folder, inner, "r")),
        "lora_alpha": _needed(folder, inner, "r" if before else "alpha"),  # older ones never applied the scale
        "lora_dropout": inner.get("dropout", 0.0),
        "target_modules": sorted({_module(key) for key in found}),
        "base_model_name_or_path": config.get("model_name", ""),
    }
    return PeftFolder(ours, found, str(folder / CONFIG))


def _needed(folder: Path, config: Mapping[str, Any], key: str) -> Any:
    """Return what another library's settings must have."""
    if config.get(key) is None:
        raise CompatibilityError(f"{folder / CONFIG} has no '{key}', which its writer always writes: it is damaged.")
    return config[key]


def _module(name: str) -> str:
    return name.removeprefix(PREFIX).rpartition(".lora_")[0]


# PEFT ---------------------------------------------------------------------------------------------------------

# What PEFT assumes of a key that is not there; keys without a value are always left out.
_ASSUMED: dict[str, Any] = {
    "bias": "none", "fan_in_fan_out": False, "lora_bias": False, "lora_dropout": 0.0, "use_dora": False,
    "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {}, "use_qalora": False, "use_bdlora": None,
}  # fmt: skip


def _to_peft(folder: Path, source: PeftFolder, wanted: Wanted) -> Converted:
    if not source.config.get("peft_type"):
        raise CompatibilityError(f"PEFT has no form for '{read_method(folder).name}' as it is set here.")
    config = {key: value for key, value in source.config.items() if value is not None}
    config = {key: value for key, value in config.items() if key not in _ASSUMED or _ASSUMED[key] != value}
    return Converted(config, dict(source.tensors))


# Plain LoRA ---------------------------------------------------------------------------------------------------


def _check_mergeable(folder: Path, source: PeftFolder) -> None:
    if not (folder / METHOD).is_file() and not read_json(folder / CONFIG, dict).get("peft_type"):
        raise CompatibilityError(f"{folder} is plain LoRA of another library already. Take the target 'peft'.")
    method = read_method(folder)
    if not method.can_merge:
        raise CompatibilityError(
            f"'{method.name}' is not a change of weights, so it cannot become LoRA. Keep it attached to its model."
        )
    if not isinstance(method, LayerMethod) or not source.modules(method.leaves):
        raise CompatibilityError(
            f"'{method.name}' trains parameters of the model itself, which is no change of linear maps by A and B. "
            "Merge it into its model instead."
        )


def _to_peft_lora(folder: Path, source: PeftFolder, wanted: Wanted) -> Converted:
    """Approximate every layer's weight change by A and B."""
    _check_mergeable(folder, source)
    seams = _open(source, wanted)
    method, delta = load_delta(folder, seams, "to convert")
    try:
        whole = getattr(method, "modules_to_save", ())
        rest = {PREFIX + name: copy.detach().cpu() for name, copy in delta.copies.items()}
        foreign = [name for name in delta.copies if not any(f".{module}." in f".{name}" for module in whole)]
        if foreign:
            raise CompatibilityError(
                f"'{method.name}' also trains '{foreign[0]}' itself, which is no change of a linear map's weight. "
                f"Targets that work for it: {'peft' if method.peft_type else 'none'}; or merge it."
            )
        found = approximate(seams, delta.patches, wanted.tolerance, wanted.rank)
    finally:
        delta.detach()
    if not found.rank:
        raise CompatibilityError(f"'{method.name}' changes no linear map, so there is nothing to make LoRA of.")
    _check_errors(found.errors, wanted, folder)
    config = {
        "peft_type": "LORA", "inference_mode": True, "r": found.rank, "lora_alpha": found.rank,
        "target_modules": sorted(found.factors), "lora_bias": bool(found.shifts),
        "fan_in_fan_out": any(seams.linear[path].stores_transposed for path in found.factors),
        "base_model_name_or_path": source.config.get("base_model_name_or_path"),
        "task_type": source.config.get("task_type"), "modules_to_save": list(whole) or None,
    }  # fmt: skip
    config = {key: value for key, value in config.items() if value not in (None, False)}
    facts = {"from": method.name, "rank": found.rank, **_errors(found.errors)}
    return Converted(config, {**_named(seams, found), **rest}, WEIGHTS, facts)


def _named(seams: Seams, found: Approximation) -> dict[str, Tensor]:
    """Name the factors as PEFT does; where one bias changes, every B has one."""
    tensors = {}
    for path, factors in found.factors.items():
        seam = seams.linear[path]
        table = isinstance(seam, EmbeddingSeam)
        for side, factor in zip("AB", factors, strict=True):
            tensors[f"{PREFIX}{path}.lora_embedding_{side}" if table else f"{PREFIX}{path}.lora_{side}.weight"] = factor
        if found.shifts and not table:
            shift = found.shifts.get(path, factors[1].new_zeros(seam.width_out))
            tensors[f"{PREFIX}{path}.lora_B.bias"] = shift
    return tensors


def _errors(errors: Mapping[str, float]) -> dict[str, Any]:
    worst = max(errors, key=errors.__getitem__)
    return {
        "layers": len(errors),
        "largest_relative_error": errors[worst],
        "mean_relative_error": sum(errors.values()) / len(errors),
        "worst_layer": worst,
        "relative_errors": dict(errors),
    }


def _check_errors(errors: Mapping[str, float], wanted: Wanted, folder: Path) -> None:
    worst = max(errors, key=errors.__getitem__)
    if errors[worst] > wanted.tolerance:
        raise CompatibilityError(
            f"{folder} as LoRA of rank {wanted.rank}: the weight change of '{worst}' is off by {errors[worst]:.2e} of "
            f"its norm (mean of {len(errors)} layers {sum(errors.values()) / len(errors):.2e}), above the tolerance "
            f"{wanted.tolerance:.2e}. Leave out the rank to get the smallest that suffices, or raise the tolerance."
        )


def _open(source: PeftFolder, wanted: Wanted) -> Seams:
    if isinstance(wanted.model, nn.Module):
        return open_seams(wanted.model)
    return open_seams(open_base(source, locate(_base(wanted.model, source.config)), torch.device("cpu")))


def _base(model: str | None, config: Mapping[str, Any]) -> str:
    base = model or str(config.get("base_model_name_or_path") or "")
    if not base:
        raise CompatibilityError(
            "the base model is needed and adapter_config.json does not name it (base_model_name_or_path). Give it "
            "with model=FOLDER, on the command line --model FOLDER."
        )
    return base


# The same everywhere ------------------------------------------------------------------------------------------


def _plain(source: PeftFolder) -> Plain:
    """Take A and B out of a PEFT folder; more than one scale or anything besides has no place in other dialects."""
    config = source.config
    if config.get("peft_type") != "LORA":
        raise CompatibilityError(f"it has a form for plain LoRA only, and this is '{config.get('peft_type')}'.")
    for option in ("use_dora", "lora_bias", "rank_pattern", "alpha_pattern", "modules_to_save", "target_parameters"):
        if config.get(option):
            raise CompatibilityError(f"it has a form for plain LoRA only, and this has '{option}'.")
    if str(config.get("init_lora_weights", True)).lower().startswith(("pissa", "olora", "corda", "lora_ga", "loftq")):
        raise CompatibilityError(f"its base weights were changed at the start ({config['init_lora_weights']}).")
    pairs = {}
    for path in source.modules(("lora_A.weight",)):
        pairs[path] = tuple(source.tensors[f"{PREFIX}{path}.lora_{side}.weight"] for side in "AB")
    if not pairs or 2 * len(pairs) != len(source.tensors):
        other = next((name for name in source.tensors if not name.endswith(("lora_A.weight", "lora_B.weight"))), "none")
        raise CompatibilityError(f"it has a form for A and B of linear maps only, and this also holds '{other}'.")
    rank = int(config.get("r", 8))
    scale = float(config.get("lora_alpha", 8)) / (rank**0.5 if config.get("use_rslora") else rank)
    return Plain(rank, scale, pairs, source)  # type: ignore[arg-type]


def _alpha(plain: Plain) -> float | int:
    alpha = plain.scale * plain.rank
    return int(alpha) if alpha == int(alpha) else alpha


# torchtune ----------------------------------------------------------------------------------------------------

_TUNE_NAMES = {
    "self_attn.q_proj": "attn.q_proj",
    "self_attn.k_proj": "attn.k_proj",
    "self_attn.v_proj": "attn.v_proj",
    "self_attn.o_proj": "attn.output_proj",
    "mlp.gate_proj": "mlp.w1",
    "mlp.down_proj": "mlp.w2",
    "mlp.up_proj": "mlp.w3",
    "lm_head": "output",
}
_TUNE_MODELS = ("llama", "mistral")  # whose q and k rows torchtune reorders; others have dialects of their own


def _tune_model(model: nn.Module | str | None, config: Mapping[str, Any]) -> Any:
    found = _model_config(model, config)
    if found.model_type not in _TUNE_MODELS:
        raise CompatibilityError(
            f"only its order of rows for {' and '.join(_TUNE_MODELS)} is known, and this is '{found.model_type}'."
        )
    return found


def _model_config(model: nn.Module | str | None, config: Mapping[str, Any]) -> Any:
    if isinstance(model, nn.Module):
        return model.config
    source = locate(_base(model, config))
    try:
        return AutoConfig.from_pretrained(source.path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"the config of the base model {source.path} cannot be read: {error}") from None


def _to_torchtune(folder: Path, source: PeftFolder, wanted: Wanted) -> Converted:
    plain = _plain(source)
    model = _tune_model(wanted.model, source.config)
    heads = HeadRows.of(model)
    outside, tensors, seen = set[str](), dict[str, Tensor](), dict[str, set[int]]()
    for path, (down, up) in plain.pairs.items():
        match = re.fullmatch(r"(|model\.)layers\.(\d+)\.([\w.]+)", path)
        if (match is None and path != "lm_head") or (match and match[3] not in _TUNE_NAMES):
            raise CompatibilityError(f"it has no name for '{path}'. It has: {', '.join(_TUNE_NAMES)}.")
        kind = _TUNE_NAMES[match[3] if match else path]
        name = f"layers.{match[2]}.{kind}" if match else kind
        if match:
            outside.add(match[1])
            seen.setdefault(kind, set()).add(int(match[2]))
        tensors[f"{name}.lora_a.weight"] = down
        tensors[f"{name}.lora_b.weight"] = heads.to_neighbours(path, up).contiguous()
    _check_all_layers(seen, model.num_hidden_layers)
    targets = sorted(seen.keys() | ({"output"} if "lm_head" in plain.pairs else set()))
    config = {
        "r": plain.rank,
        "lora_alpha": _alpha(plain),
        "target_modules": [name.rpartition(".")[2] for name in targets],
        "base_model_name_or_path": source.config.get("base_model_name_or_path", ""),
        _OUTSIDE: next(iter(outside), "model."),
    }
    return Converted(config, tensors)


def _check_all_layers(seen: Mapping[str, set[int]], layers: int) -> None:
    """torchtune adapts a kind of map in every layer or in none, and the three of the feed-forward together."""
    for kind, numbers in seen.items():
        if len(numbers) != layers:
            raise CompatibilityError(
                f"it adapts '{kind}' in every layer or in none; this has {len(numbers)} of {layers}."
            )
    inner = [kind for kind in seen if kind.startswith("mlp.")]
    if len(inner) in (1, 2):
        raise CompatibilityError(f"it adapts w1, w2 and w3 of the feed-forward together; this has {', '.join(inner)}.")


# AdapterHub ---------------------------------------------------------------------------------------------------

_HUB_PLACES = {
    "attention.self.query": "q",
    "attention.self.key": "k",
    "attention.self.value": "v",
    "intermediate.dense": "intermediate_lora",
    "output.dense": "output_lora",
}
_HUB_MODELS = ("bert", "roberta")


def _to_adapterhub(folder: Path, source: PeftFolder, wanted: Wanted) -> Converted:
    plain, model = _plain(source), _model_config(wanted.model, source.config)
    if model.model_type not in _HUB_MODELS:
        raise CompatibilityError(
            f"only its names for {' and '.join(_HUB_MODELS)} are known, this is '{model.model_type}'."
        )
    tensors, seen = dict[str, Tensor](), dict[str, set[int]]()
    for path, pair in plain.pairs.items():
        match = re.fullmatch(r"(?:bert\.|roberta\.)?(encoder\.layer\.(\d+)\.([\w.]+))", path)
        if match is None or match[3] not in _HUB_PLACES:
            raise CompatibilityError(f"it has no place for LoRA at '{path}'. It has: {', '.join(_HUB_PLACES)}.")
        seen.setdefault(_HUB_PLACES[match[3]], set()).add(int(match[2]))
        for side, factor in zip("AB", pair, strict=True):
            tensors[f"{match[1]}.loras.default.lora_{side}"] = factor
    adapted = next(iter(seen.values()))
    if any(numbers != adapted for numbers in seen.values()):
        raise CompatibilityError("it adapts the same maps in every layer; this has other maps in other layers.")
    inner = {
        "architecture": "lora", "r": plain.rank, "alpha": _alpha(plain), "composition_mode": "add",
        "dropout": float(source.config.get("lora_dropout", 0.0)), "init_weights": "lora", "use_gating": False,
        "attn_matrices": sorted(seen.keys() & set("qkv")), "selfattn_lora": bool(seen.keys() & set("qkv")),
        "intermediate_lora": "intermediate_lora" in seen, "output_lora": "output_lora" in seen,
        "leave_out": [number for number in range(model.num_hidden_layers) if number not in adapted],
    }  # fmt: skip
    config = {
        "config": inner, "name": "default", "model_type": model.model_type, "hidden_size": model.hidden_size,
        "model_name": str(source.config.get("base_model_name_or_path", "")),
        "model_class": {"bert": "BertModel", "roberta": "RobertaModel"}[model.model_type], "version": _HUB_VERSION,
    }  # fmt: skip
    note = "load it with load_adapter(FOLDER, use_safetensors=True)"
    return Converted(config, tensors, _HUB_WEIGHTS, {"note": note})


TARGETS: dict[str, Callable[[Path, PeftFolder, Wanted], Converted]] = {
    "peft": _to_peft,
    "peft-lora": _to_peft_lora,
    "torchtune": _to_torchtune,
    "adapterhub": _to_adapterhub,
}
