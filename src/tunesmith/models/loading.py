"""Load a pretrained model safely: safetensors only, no code from the model's repository."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from tunesmith.core.errors import (
    CheckpointError,
    CompatibilityError,
    RecipeError,
    SecurityError,
    TunesmithError,
    nearest,
)
from tunesmith.core.files import read_json, sha256_of
from tunesmith.core.registry import components

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_HUB_SECONDS = 10  # to wait for the hub's first answer


@dataclass(frozen=True)
class Source:
    """Where a model comes from.

    Args:
        wanted: what the user wrote.
        path: local folder, or hub name.
        local: whether `path` is a folder.
    """

    wanted: str
    path: str
    local: bool

    def hash(self, config: Any) -> str:
        """Identify the weights.

        Args:
            config: of the model as loaded; used when the files are not at hand.
        Returns:
            "sha256:..." of the weight files, or "hub:name@commit" for a hub model.
        """
        if self.local:
            return "sha256:" + sha256_of(sorted(Path(self.path).glob("*.safetensors")))
        return f"hub:{self.path}@{getattr(config, '_commit_hash', None)}"


def locate(wanted: str) -> Source:
    """Turn an embedded name, a local folder or a hub name into a place to load from.

    Args:
        wanted: as in the recipe's `model`.
    Returns:
        The place.
    Raises:
        RecipeError: none of the three.
        CheckpointError: the folder holds no model, or the hub does not give it.
        SecurityError: the folder holds pickled weights only.
    """
    embedded = components("models")
    if not wanted.strip():
        raise RecipeError(f"model: its name is empty. Give {', '.join(embedded)}, a folder or a hub name (owner/name).")
    if wanted in embedded:
        path = embedded[wanted].locate()
        return Source(wanted, path, Path(path).is_dir())
    folder = Path(wanted).expanduser()
    if folder.is_dir():
        _check_folder(folder)
        return Source(wanted, str(folder), True)
    if folder.exists():
        raise CheckpointError(f"model: {wanted} is a file; give the folder that holds config.json and the weights.")
    if wanted.startswith((".", "/", "~")) or wanted.count("/") > 1 or "\\" in wanted:
        raise RecipeError(f"model: the folder {wanted} does not exist.")
    if "/" not in wanted:
        near = nearest(wanted, embedded)
        hint = f"; did you mean '{near}'?" if near else "."
        raise RecipeError(
            f"model: '{wanted}' is neither an embedded model ({', '.join(embedded)}) nor a folder{hint} "
            "A hub name has the form owner/name."
        )
    _check_hub(wanted)
    return Source(wanted, wanted, False)


def beside(name: str, folder: Path) -> str:
    """Look a relative model folder up beside the recipe first, as data files are.

    Args:
        name: as in the recipe.
        folder: the recipe's.
    Returns:
        The folder that is there, or the name.
    """
    place = folder / name
    return str(place) if not Path(name).is_absolute() and (place / "config.json").is_file() else name


def first_place(model: nn.Module) -> int:
    """Return the position of a row's first token: RoBERTa and its kin count from behind the pad token's number.

    Args:
        model: as loaded.
    Returns:
        0 for most.
    """
    tables = (part for name, part in model.named_modules() if name.endswith("position_embeddings"))
    pads = [int(part.padding_idx) for part in tables if getattr(part, "padding_idx", None) is not None]
    return max(pads) + 1 if pads else 0


def _check_hub(name: str) -> None:
    """Ask the hub once, where the model is not at hand: loading would try again and again before it gives up."""
    import huggingface_hub

    try:
        at_hand = isinstance(huggingface_hub.try_to_load_from_cache(name, "config.json"), str)
        owner = Path(name).parent
        if not at_hand and not owner.is_dir():
            huggingface_hub.HfApi().model_info(name, timeout=_HUB_SECONDS)
    except Exception as error:
        raise CheckpointError(
            f"model: there is no folder {name}, and the hub gives no model of that name: {_first_line(error)} "
            "Check the name and the network, or give a local folder."
        ) from error
    if not at_hand and owner.is_dir():
        near = nearest(Path(name).name, [item.name for item in owner.iterdir() if item.is_dir()])
        hint = f"; did you mean {owner / near}?" if near else "."
        raise RecipeError(
            f"model: the folder {name} does not exist, and as {owner} is a folder here, it is not taken for a name of "
            f"the hub{hint}"
        )


def _check_folder(folder: Path) -> None:
    config = folder / "config.json"
    if not config.is_file():
        raise CheckpointError(f"model: {folder} has no config.json, so it is not a transformers model folder.")
    try:
        json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"model: {config} is damaged, as it is not JSON: {error}. Copy it again.") from None
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if pickles:
        raise SecurityError(
            f"model: {folder} holds its weights only as {', '.join(pickles)}. Such pickle files can run code when "
            "opened, so they are refused. Way out: in an environment you can throw away, load the model with "
            "transformers and call save_pretrained(FOLDER), which writes model.safetensors; then use that folder."
        )
    raise CheckpointError(
        f"model: {folder} has a config.json but no weights (*.safetensors). Copy model.safetensors into it."
    )


def choose_device(wanted: str) -> torch.device:
    """Turn the recipe's device into a real one.

    Args:
        wanted: "auto", "cpu", "cuda", "cuda:1", "mps".
    Returns:
        The device; "auto" takes cuda, then mps, then cpu.
    Raises:
        RecipeError: the device is not there.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if not is_at_hand(wanted):
        usable = ", ".join(name for name, found in _kinds().items() if found)
        raise RecipeError(f"device: '{wanted}' is not available on this machine. Available: auto, {usable}")
    return torch.device(wanted)


def is_at_hand(wanted: str) -> bool:
    """Say whether this machine has a device.

    Args:
        wanted: as in `choose_device`.
    Returns:
        True for "auto".
    """
    kind, colon, number = wanted.partition(":")
    if colon and not number.isdecimal():
        return False
    if kind == "cuda" and colon and int(number) >= torch.cuda.device_count():
        return False
    return wanted == "auto" or _kinds().get(kind, False)


def _kinds() -> dict[str, bool]:
    return {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}


def opener(config: Any, opens: str = "causal") -> Any:
    """Choose transformers' class for a model.

    Args:
        config: of the model.
        opens: "body", "masked": with the head that fills in, "tags": with the one that labels tokens, or "causal": with
            the head that writes; of an encoder-decoder, with both parts.
    Returns:
        An auto class.
    """
    kinds = {"body": AutoModel, "masked": AutoModelForMaskedLM, "tags": AutoModelForTokenClassification}
    if opens != "causal":
        return kinds[opens]
    return AutoModelForSeq2SeqLM if getattr(config, "is_encoder_decoder", False) else AutoModelForCausalLM


def load_config(source: Source) -> Any:
    """Read a model's config.

    Args:
        source: from `locate`.
    Returns:
        The config, of transformers.
    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        with quiet():
            return AutoConfig.from_pretrained(source.path, trust_remote_code=False)
    except Exception as error:
        raise _explained(error, source, "body") from error


def opening(source: Source, names: Iterable[str], writes: bool) -> str:
    """Choose how a model is opened so that it has the modules that a delta names.

    Args:
        source: from `locate`.
        names: dotted names of modules or parameters in the model.
        writes: the delta says that it is of a model with its language-model head.
    Returns:
        "causal" where it writes; else "body", "causal" or "masked", the first that has the names; "body" if none has.
    Raises:
        CheckpointError: the model's config cannot be read.
    """
    if writes:
        return "causal"
    wanted = {name.partition(".")[0] for name in names}
    config = load_config(source)
    for opens in ("body", "causal", "masked"):
        try:
            with quiet(), torch.device("meta"):
                model = opener(config, opens).from_config(config)
        except ValueError:  # the architecture has no such head
            continue
        if wanted <= {name for name, _ in model.named_children()}:
            return opens
    return "body"


def hollow_model(source: Source, opens: str) -> PreTrainedModel:
    """Make a model as its config.json describes it, without weights: no file of weights is read.

    Args:
        source: from `locate`.
        opens: "body", "causal" or "masked".
    Returns:
        The model, on torch's meta device.
    Raises:
        CheckpointError: the model's config cannot be read.
        CompatibilityError: the architecture has no such head.
    """
    try:
        with quiet(), torch.device("meta"):
            config = AutoConfig.from_pretrained(source.path, trust_remote_code=False)
            model: PreTrainedModel = opener(config, opens).from_config(config)
    except Exception as error:
        raise _explained(error, source, opens) from error
    model.untrained_pooler = False  # what the weights hold is not known
    return model


def load_model(
    source: Source, device: torch.device, dtype: torch.dtype = torch.float32, opens: str = "body"
) -> PreTrainedModel:
    """Load a model in evaluation mode: its backbone without a head, or with its language-model head.

    Args:
        source: from `locate`.
        device: where to put it.
        dtype: of the weights.
        opens: "body", "causal", "masked" or "tags".
    Returns:
        The model.
    Raises:
        CheckpointError: weights missing, damaged or of another architecture.
        CompatibilityError: the architecture has no such head.
    """
    with quiet():
        try:
            config = AutoConfig.from_pretrained(source.path, trust_remote_code=False)
            model, facts = opener(config, opens).from_pretrained(
                source.path,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are named below
            )
        except Exception as error:
            raise _explained(error, source, opens) from error
    _check_sizes(facts["mismatched_keys"], source)
    missing = [name for name in facts["missing_keys"] if "pooler" not in name]
    if missing:
        raise CheckpointError(
            f"model: the weights of {source.wanted} lack {len(missing)} tensors that {type(model).__name__} needs, "
            f"for example '{missing[0]}'. They would be random. Take the weights that belong to this config.json."
        )
    for module in model.modules():
        if "Sinusoidal" in type(module).__name__:
            module.requires_grad_(False)  # a fixed table of positions; loading forgets that it is frozen
    model.untrained_pooler = bool(facts["missing_keys"])
    loaded: PreTrainedModel = model.eval().to(device)
    return loaded


def _check_sizes(wrong: Iterable[tuple[str, Any, Any]], source: Source) -> None:
    """Refuse weights of other sizes than config.json says, with an example."""
    found = sorted(wrong)
    if found:
        name, stored, wanted = found[0]
        raise CheckpointError(
            f"model: {len(found)} tensors of {source.wanted} do not fit its config.json, for example '{name}': "
            f"{tuple(stored)} in the weights, {tuple(wanted)} by config.json. Take the two from the same model."
        )


def load_tokenizer(source: Source) -> Any:
    """Load the tokenizer that belongs to a model.

    Args:
        source: from `locate`.
    Returns:
        A transformers tokenizer.
    Raises:
        CheckpointError: missing or damaged.
    """
    with quiet():
        try:
            return AutoTokenizer.from_pretrained(source.path, trust_remote_code=False, use_fast=True)
        except Exception as error:
            raise CheckpointError(
                f"model: the tokenizer of {source.wanted} cannot be loaded: {_first_line(error)}. "
                "A model folder needs tokenizer.json and tokenizer_config.json."
            ) from error


def sentence_settings(source: Source) -> dict[str, Any]:
    """Read how a sentence encoder pools its tokens, where the model folder says so.

    Args:
        source: from `locate`.
    Returns:
        {"pooling": "mean" | "cls" | "last", "max_tokens": int}, each only where given.
    """
    if not source.local:
        return {}
    folder, found = Path(source.path), dict[str, Any]()
    if (folder / "1_Pooling" / "config.json").is_file():
        modes = read_json(folder / "1_Pooling" / "config.json", dict)
        for key, pooling in (("mean_tokens", "mean"), ("cls_token", "cls"), ("lasttoken", "last")):
            if modes.get(f"pooling_mode_{key}"):
                found["pooling"] = pooling
    if (folder / "sentence_bert_config.json").is_file():
        limit = read_json(folder / "sentence_bert_config.json", dict).get("max_seq_length")
        if limit:
            found["max_tokens"] = int(limit)
    return found


def _explained(error: Exception, source: Source, opens: str) -> TunesmithError:
    text = _first_line(error)
    if "Unrecognized configuration class" in text:
        head, instead = {
            "masked": (
                "that fills in hidden tokens",
                "an encoder (BERT, ModernBERT), or causal in the place of masked (task.objective, task.scoring)",
            ),
            "tags": ("that labels tokens", "an encoder that was trained for token classification"),
            "causal": ("that writes", "a decoder or an encoder-decoder, or task text-classification"),
        }.get(opens, ("of that kind", "another model"))
        return CompatibilityError(
            f"model: transformers knows no head {head} for {_class_name(text)}, as {source.wanted} is. Choose "
            f"{instead}."
        )
    if "trust_remote_code" in str(error):
        return SecurityError(
            f"model: {source.wanted} wants to run code from its own repository, which is refused. "
            "Use a model that transformers knows by itself."
        )
    if not source.local:
        return CheckpointError(
            f"model: '{source.wanted}' could not be loaded from the hub: {text} Check the name and the network, "
            "or give a local folder."
        )
    return CheckpointError(
        f"model: {source.path} cannot be loaded: {text} The files are damaged or do not belong together; "
        "copy the folder again."
    )


def _class_name(text: str) -> str:
    """Find the architecture in transformers' sentence "... configuration class <class 'a.b.LlamaConfig'> for ..."."""
    return text.partition("<class '")[2].partition("'")[0].rpartition(".")[2].removesuffix("Config")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' bars and notices off the screen; errors still rise.

    Returns:
        A context.
    """
    level = transformers_logging.get_verbosity()
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
