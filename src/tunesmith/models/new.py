"""A new model with random weights and a tokenizer of its own, for pretraining from scratch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tunesmith.core.errors import RecipeError, unknown
from tunesmith.core.seeds import derived, seed_everything
from tunesmith.models.loading import opener, quiet
from tunesmith.recipe.schema import NewModelSettings

_END, _UNKNOWN, _MASK, _PAD = "</s>", "<unk>", "<mask>", "<pad>"

# Layers, width, heads of Llama-shaped models; millions of parameters without the vocabulary's table beside each.
SIZES = {
    "tiny": (4, 128, 4),  # 0.8
    "small": (6, 384, 6),  # 10.6
    "medium": (12, 768, 12),  # 85
    "large": (24, 1024, 16),  # 302
}


def build_model(
    settings: NewModelSettings, opens: str, texts: Iterable[str], context: int, seed: int, folder: Path
) -> None:
    """Train a tokenizer, draw a model's weights, and write both as a model folder.

    Args:
        settings: of the recipe's `model.new`.
        opens: "causal", or "masked": the tokenizer gets a mask token.
        texts: that the tokenizer is trained on.
        context: longest row the model will read. [tokens]
        seed: of the weights.
        folder: to write into.
    Raises:
        RecipeError: an unknown architecture, one that does not do what the task asks, or a config key it lacks.
    """
    plain = _plain(settings)
    extra = {"mask_token": _MASK} if opens == "masked" else {}
    if plain.is_encoder_decoder or getattr(plain, "pad_token_id", None) is not None:
        extra["pad_token"] = _PAD
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(settings, [_UNKNOWN, _END, *extra.values()], texts), eos_token=_END,
        unk_token=_UNKNOWN, model_max_length=context, **extra,
    )  # fmt: skip
    config = _config(settings, plain, tokenizer, context)
    if opens == "causal" and hasattr(config, "is_decoder") and not config.is_encoder_decoder:
        config.is_decoder = True  # encoders by nature, as BERT, look at what comes after unless told so
    seed_everything(derived(seed, "new model"))
    with quiet():
        model = _made(settings.architecture, config, opens)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _made(architecture: str, config: Any, opens: str) -> Any:
    """Draw a model's weights, and see that it runs."""
    try:
        model = opener(config, opens).from_config(config, dtype=torch.float32).eval()
        ids = torch.tensor([[1, 1]])
        with torch.no_grad():
            model(input_ids=ids, **({"decoder_input_ids": ids} if config.is_encoder_decoder else {}))
    except (ValueError, TypeError, AttributeError, RuntimeError, LookupError, ArithmeticError) as error:
        why = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise RecipeError(
            f"model.new.architecture: '{architecture}' cannot be made for this task with these keys in "
            f"model.new.config: {why}. Known to work: llama, gpt2, qwen2, mistral for texts that go on and "
            "for answers; bart, t5, marian for answers; bert, roberta, modernbert, electra for task.objective=masked. "
            "Others may need keys in model.new.config."
        ) from None
    return model


def _tokenizer(settings: NewModelSettings, special: list[str], texts: Iterable[str]) -> Tokenizer:
    if settings.tokenizer == "characters":
        found = sorted({character for text in texts for character in text})
        names = [*special, *found]
        tokenizer = Tokenizer(models.WordLevel({name: place for place, name in enumerate(names)}, unk_token=_UNKNOWN))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        tokenizer.decoder = decoders.Fuse()
        return tokenizer
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _plain(settings: NewModelSettings) -> Any:
    """Return an architecture's configuration as it is by default."""
    known = transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES
    if settings.architecture not in known:
        raise RecipeError(f"model.new.architecture: {unknown('architecture', settings.architecture, known)}")
    plain = transformers.AutoConfig.for_model(settings.architecture)
    foreign = [key for key in settings.config if not hasattr(plain, key)]
    if foreign:
        raise RecipeError(f"model.new.config: {unknown('key', foreign[0], plain.to_dict())}")
    for key, value in settings.config.items():
        if "drop" in key and isinstance(value, int | float) and not 0 <= value < 1:
            raise RecipeError(f"model.new.config: {key}={value}; a rate of dropout is at least 0 and less than 1.")
    return plain


def _config(settings: NewModelSettings, plain: Any, tokenizer: Any, context: int) -> Any:
    _check_tokens(settings.config, len(tokenizer))
    layers, width, heads = SIZES[settings.size]
    below, pad = settings.config.get("num_layers", layers), tokenizer.pad_token_id
    unread = 0 if pad is None or plain.is_encoder_decoder else pad + 1  # RoBERTa counts places from the pad token's id
    values: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "intermediate_size": 32 * round(width * 8 / 3 / 32),  # as many numbers as two maps of four times the width
        "max_position_embeddings": context + unread,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": pad,
        **dict.fromkeys(("cls_token_id", "sep_token_id", "forced_eos_token_id"), None),
        **dict.fromkeys(("decoder_layers", "num_decoder_layers"), below),
        **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), heads),
        **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "d_ff"), 4 * width),
        "d_kv": width // heads,
    }
    renamed = getattr(plain, "attribute_map", {})
    fitting = {renamed.get(key, key): value for key, value in values.items() if hasattr(plain, key)}
    if plain.is_encoder_decoder:
        fitting["decoder_start_token_id"] = tokenizer.eos_token_id
    try:
        found = transformers.AutoConfig.for_model(settings.architecture, **{**fitting, **settings.config})
    except Exception as error:  # noqa: BLE001  what a configuration checks, and what it raises, differs between architectures
        raise RecipeError(f"model.new.config: {' '.join(str(error).split())[:300]}") from None
    for key in ("num_hidden_layers", "decoder_layers", "num_decoder_layers"):
        count = getattr(found, key, None) or 0 if hasattr(found, key) else 1
        if count < 1:
            raise RecipeError(f"model.new.config: {renamed.get(key, key)}={count}; a model has at least 1 layer.")
    return found


def _check_tokens(given: dict[str, Any], count: int) -> None:
    """Refuse numbers of special tokens that the new tokenizer does not have."""
    for key, value in given.items():
        if key.endswith("_token_id") and isinstance(value, int) and not 0 <= value < count:
            raise RecipeError(
                f"model.new.config: {key}={value}; the new tokenizer has the tokens 0 to {count - 1}. Leave it out: "
                "the tokenizer says what its special tokens are."
            )
