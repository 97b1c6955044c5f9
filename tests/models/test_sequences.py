"""Encoder-decoders at their seams: the same numbers as the model's own forward, row by row."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import transformers
from torch import Tensor, nn

from tunesmith.core.errors import CompatibilityError
from tunesmith.methods.lora import Lora
from tunesmith.models.layout import RaggedBatch, ragged
from tunesmith.models.sequences import SequenceToSequence, open_language
from tunesmith.tasks.translation import Translation

_SHARED = {"vocab_size": 96, "d_model": 32}
_BART_LIKE = {
    "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64, "dropout": 0.0,
}  # fmt: skip
_T5 = {"d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0, "dropout_rate": 0.0}
FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "bart": lambda: transformers.BartForConditionalGeneration(transformers.BartConfig(**_SHARED, **_BART_LIKE)),
    "t5": lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(**_SHARED, **_T5)),
    "t5 untied": lambda: transformers.T5ForConditionalGeneration(
        transformers.T5Config(**_SHARED, **_T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    ),
    "marian": lambda: transformers.MarianMTModel(
        transformers.MarianConfig(
            **_SHARED, **_BART_LIKE, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, scale_embedding=True
        )
    ),
}


def rows() -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(3)
    sizes = ((4, 5), (7, 5), (3, 9), (4, 5))
    return [(torch.randint(5, 96, (read,), generator=draw), torch.randint(5, 96, (write,), generator=draw))
            for read, write in sizes]  # fmt: skip


def batch_of(pairs: list[tuple[Tensor, Tensor]]) -> RaggedBatch:
    marks = [torch.cat([torch.zeros(len(read)), torch.ones(len(write))]).bool() for read, write in pairs]
    return ragged([torch.cat(pair) for pair in pairs], learned=marks)


def opened(family: str) -> SequenceToSequence:
    torch.manual_seed(0)
    model = open_language(FAMILIES[family]().double().eval())
    assert isinstance(model, SequenceToSequence)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_equal_the_models_own_row_by_row(family: str) -> None:
    model, pairs, task = opened(family), rows(), Translation()
    delta = Lora(rank=2, alpha=4).attach(model.seams, "one")
    torch.manual_seed(1)
    for parameter in delta.parameters():
        nn.init.normal_(parameter, std=0.1)
    batch = batch_of(pairs)
    ours = task.loss_of(model, nn.Identity(), delta, task.read(model, batch), batch, 0.0)
    found = torch.autograd.grad(ours, delta.parameters())
    total = sum(len(write) for _, write in pairs)
    plain = sum(
        model.model(input_ids=read[None], labels=write[None]).loss * len(write) / total for read, write in pairs
    )
    wanted = torch.autograd.grad(plain, delta.parameters())
    assert abs(ours - plain) <= 1e-10
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).abs().max() <= 1e-10 * max(1.0, float(other.abs().max()))
    assert max(float(one.abs().max()) for one in found) > 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_do_not_touch_each_other(family: str) -> None:
    model, pairs = opened(family), rows()
    batch = batch_of(pairs)
    assert batch.learned is not None
    whole = model.nats(model.before_learned(batch), batch.ids[batch.learned]).split(batch.items)
    for place, number in enumerate(batch.index.tolist()):
        alone = batch_of([pairs[number]])
        assert alone.learned is not None
        nats = model.nats(model.before_learned(alone), alone.ids[alone.learned])
        assert (whole[place] - nats).abs().max() <= 1e-10


def test_rows_of_several_deltas_run_together() -> None:
    model, pairs = opened("bart"), rows()
    for name in ("one", "two"):
        delta = Lora(rank=2, alpha=4).attach(model.seams, name)
        for parameter in delta.parameters():
            nn.init.normal_(parameter, std=0.1)
    marks = [torch.cat([torch.zeros(len(read)), torch.ones(len(write))]).bool() for read, write in pairs]
    names = ["one", "two", "two", None]
    mixed = ragged([torch.cat(pair) for pair in pairs], names=names, learned=marks)
    assert mixed.learned is not None
    whole = model.nats(model.before_learned(mixed), mixed.ids[mixed.learned]).split(mixed.items)
    for place, number in enumerate(mixed.index.tolist()):
        model.seams.use(names[number])
        alone = batch_of([pairs[number]])
        assert alone.learned is not None
        nats = model.nats(model.before_learned(alone), alone.ids[alone.learned])
        assert (whole[place] - nats).abs().max() <= 1e-10


def test_a_decoder_without_a_start_token_is_refused() -> None:
    model = FAMILIES["bart"]()
    model.config.decoder_start_token_id = None  # type: ignore[union-attr,assignment]
    model.generation_config.decoder_start_token_id = None  # type: ignore[union-attr,assignment]
    with pytest.raises(CompatibilityError, match="decoder_start_token_id"):
        SequenceToSequence(model)
