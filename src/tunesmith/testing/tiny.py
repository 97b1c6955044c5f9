"""Tiny random models of every family, built from a config without a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import transformers
from torch import Tensor, nn


@dataclass(frozen=True)
class TinyModel:
    """A family of models in small.

    Args:
        build: makes a model with random weights, the same ones each time.
        inputs: makes a batch of two rows.
        has: what methods may need of a model; see Method.needs.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[], dict[str, Tensor]]
    has: frozenset[str]


_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
_WORDS = 96


def _model(config: transformers.PretrainedConfig) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = transformers.AutoModel.from_config(config)
    return model.eval()


def _tokens() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {"input_ids": torch.randint(5, _WORDS, (2, 9), generator=draw)}


def _encoder() -> nn.Module:
    return _model(transformers.BertConfig(vocab_size=_WORDS, max_position_embeddings=64, **_SMALL))


def _decoder() -> nn.Module:
    return _model(transformers.LlamaConfig(vocab_size=_WORDS, num_key_value_heads=2, pad_token_id=0, **_SMALL))


def _transposed_decoder() -> nn.Module:
    config = transformers.GPT2Config(vocab_size=_WORDS, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    return _model(config)


def _encoder_decoder() -> nn.Module:
    config = transformers.BartConfig(
        vocab_size=_WORDS, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64,
    )  # fmt: skip
    return _model(config)


def _vision() -> nn.Module:
    return _model(transformers.ViTConfig(image_size=16, patch_size=8, num_channels=3, **_SMALL))


def _pixels() -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))}


def tiny_models() -> dict[str, TinyModel]:
    """Return one model per family.

    Returns:
        Family to model: encoder, decoder, decoder with transposed linears, encoder-decoder, vision.
    """
    text = frozenset({"linear", "attention", "tokens"})
    return {
        "encoder": TinyModel(_encoder, _tokens, text | {"bias"}),
        "decoder": TinyModel(_decoder, _tokens, text),
        "transposed-decoder": TinyModel(_transposed_decoder, _tokens, text | {"bias"}),
        "encoder-decoder": TinyModel(_encoder_decoder, _tokens, text | {"bias"}),
        "vision": TinyModel(_vision, _pixels, text - {"tokens"} | {"bias"}),
    }
