"""Rows of several deltas in models that write: beams, tables of positions, heads outside the body."""

from collections.abc import Callable

import pytest
import torch
import transformers
from torch import nn

import tunesmith

WORDS = 96
NAMES = ["mine", None, "mine", "other"]


def gpt2() -> transformers.PreTrainedConfig:
    return transformers.GPT2Config(vocab_size=WORDS, n_embd=32, n_layer=2, n_head=4, n_positions=64, pad_token_id=0)


def bart() -> transformers.PreTrainedConfig:
    return transformers.BartConfig(
        vocab_size=WORDS, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64, pad_token_id=0,
        forced_eos_token_id=None,
    )  # fmt: skip


def t5() -> transformers.PreTrainedConfig:
    return transformers.T5Config(
        vocab_size=WORDS, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0
    )


def routed(config: Callable[[], transformers.PreTrainedConfig], method: str) -> nn.Module:
    """Build a model with two deltas that answer unlike each other and unlike the base."""
    torch.manual_seed(0)
    kind = transformers.AutoModelForSeq2SeqLM if config is not gpt2 else transformers.AutoModelForCausalLM
    model = kind.from_config(config()).eval().double()
    settings = {"token_indices": (5, 6, 7, 8, 9)} if method == "trainable-tokens" else {}
    deltas = tunesmith.attach(model, method, "mine", **settings), tunesmith.attach(model, "lora", "other", rank=2)
    with torch.no_grad():
        for parameter in (parameter for delta in deltas for parameter in delta.parameters()):
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("method", ["full", "last-layers", "trainable-tokens", "lora"])
@pytest.mark.parametrize("config", [gpt2, bart, t5])
def test_every_row_writes_as_it_does_alone(config: Callable[[], object], method: str, beams: int) -> None:
    model = routed(config, method)
    ids = torch.randint(5, WORDS, (4, 6), generator=torch.Generator().manual_seed(1))
    settings = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "num_beams": beams, "eos_token_id": 1}
    with tunesmith.route(model, NAMES):
        together = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    for row, name in enumerate(NAMES):
        with tunesmith.route(model, [name]):
            alone = model.generate(ids[row : row + 1], attention_mask=torch.ones(1, 6, dtype=torch.int64), **settings)
        assert torch.equal(together[row], alone[0])


@pytest.mark.parametrize("tokens", [4, 3])
def test_a_table_of_distances_is_no_batch(tokens: int) -> None:
    """T5 looks up a square of distances, which has as many rows as the batch when there are as many tokens."""
    model = routed(t5, "full")
    draw = torch.Generator().manual_seed(2)
    ids, answers = (torch.randint(5, WORDS, (4, tokens), generator=draw) for _ in range(2))
    with torch.no_grad():
        with tunesmith.route(model, NAMES):
            together = model(input_ids=ids, decoder_input_ids=answers).logits
        for row, name in enumerate(NAMES):
            with tunesmith.route(model, [name]):
                alone = model(input_ids=ids[row : row + 1], decoder_input_ids=answers[row : row + 1]).logits
            assert (together[row] - alone[0]).abs().max() <= 1e-9 * alone.abs().max()
