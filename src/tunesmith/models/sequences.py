"""A model of an encoder that reads and a decoder that writes: T5, BART, Marian and their kin."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers.modeling_outputs import BaseModelOutput

from tunesmith.core.errors import CompatibilityError
from tunesmith.models.backbone import Backbone, Proof
from tunesmith.models.branching import Ends
from tunesmith.models.language import LanguageModel
from tunesmith.models.layout import RaggedBatch, ragged


class SequenceToSequence(LanguageModel):
    """An encoder-decoder with a language-model head, opened at its seams.

    A row holds what the encoder reads and, marked as learned, what the decoder writes. Rows run padded: encoders and
    decoders of this kind count positions by themselves.

    Args:
        model: a transformers model for conditional generation.
        prove: check the head now.
    Raises:
        CompatibilityError: no start token, or a head that reads more than the decoder's last hidden states.
    """

    apart: ClassVar[bool] = True

    def __init__(self, model: nn.Module, prove: bool = True) -> None:
        Backbone.__init__(self, model, prove=False)
        self.proof = Proof(False, 0, 0.0, "an encoder and a decoder")
        self._shares = False
        self.leads = {}
        start = getattr(model.generation_config, "decoder_start_token_id", None)
        start = getattr(model.config, "decoder_start_token_id", None) if start is None else start
        if start is None:
            raise CompatibilityError(
                f"{type(model).__name__} names no token that its decoder starts with (decoder_start_token_id in "
                "config.json), so it is not known what a target begins after. Add it to config.json."
            )
        self.start = int(start)
        self.encoder: nn.Module = model.get_encoder()  # type: ignore[operator]
        self.decoder: nn.Module = model.get_decoder()  # type: ignore[operator]
        self._speaker = self.decoder
        if prove:
            self._prove_head()

    def speakers(self) -> list[nn.Module]:
        """Return the decoder: the head reads its output."""
        return [self.decoder]

    def whole(self, ids: Tensor, read: Tensor | None = None) -> Tensor:
        """Run the model with its head, the encoder left out where its states are given.

        Args:
            ids: (1, T), of the decoder; the encoder reads the same ones.
            read: (1, S, D), the encoder's states.
        Returns:
            Logits, (T, V).
        """
        given: dict[str, Any] = (
            {"input_ids": ids} if read is None else {"encoder_outputs": BaseModelOutput(last_hidden_state=read)}
        )
        found: Tensor = self.model(**given, decoder_input_ids=ids, use_cache=False).logits[0]
        return found

    def one_row(self) -> tuple[Tensor, Tensor]:
        """Run one drawn row through the seams, and whole; the decoder reads what the encoder does."""
        low = min(10, self.vocabulary - 1)
        ids = torch.randint(low, self.vocabulary, (7,), generator=torch.Generator().manual_seed(0))
        ids[0] = self.start
        row = torch.cat([ids, ids[1:], ids[:1]])  # the last token is only predicted
        batch = ragged([row], learned=[torch.arange(14) >= 7])
        return self.before_learned(batch), self.whole(ids[None].to(self.device))

    def before_learned(self, batch: RaggedBatch) -> Tensor:
        """Let the encoder read each row's given tokens, and the decoder its learned ones, moved by one.

        Args:
            batch: R rows; what is learned of a row stands at its end.
        Returns:
            Hidden states that the learned tokens are predicted from, (M, D), in the batch's order.
        """
        batch = batch.to(self.device)
        assert batch.learned is not None
        lengths = list(batch.layout.lengths)
        rows = list(zip(batch.ids.split(lengths), batch.learned.split(lengths), strict=True))
        start = batch.ids.new_full((1,), self.start)
        read, read_mask = _padded([ids[~learned] for ids, learned in rows])
        given, given_mask = _padded([torch.cat([start, ids[learned][:-1]]) for ids, learned in rows])
        routed = self.seams.route(batch.layout.names) if batch.layout.names is not None else nullcontext()
        with routed, self._sparingly():
            states = self.encoder(input_ids=read, attention_mask=read_mask).last_hidden_state
            output = self.decoder(
                input_ids=given,
                attention_mask=given_mask,
                encoder_hidden_states=states,
                encoder_attention_mask=read_mask,
                use_cache=False,
            )
        hidden: Tensor = output.last_hidden_state[given_mask.bool()]
        return hidden

    def read_only(self, batch: RaggedBatch) -> Tensor:
        """Run the encoder."""
        batch, names = batch.to(self.device), batch.layout.names
        ids, mask = _padded(list(batch.ids.split(list(batch.layout.lengths))))
        with nullcontext() if names is None else self.seams.route(names), self._sparingly():
            found: Tensor = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return found[mask.bool()]

    def hidden_behind(self, batch: RaggedBatch, ends: Ends) -> Tensor:
        """Let the encoder read each row once, and the decoder write every ending from its states.

        Args:
            batch: R rows of what the encoder reads.
            ends: token sequences that the decoder is given behind its start token.
        Returns:
            (R, P, D): the state of the start token, then of the tokens of every ending, one after another.
        """
        batch, names, tails = batch.to(self.device), batch.layout.names, [list(end) for end in ends] or [[]]
        read, read_mask = _padded(list(batch.ids.split(list(batch.layout.lengths))))
        given, given_mask = _padded([batch.ids.new_tensor([self.start, *tail]) for tail in tails])
        with nullcontext() if names is None else self.seams.route(names), self._sparingly():
            states = self.encoder(input_ids=read, attention_mask=read_mask).last_hidden_state
        rows, ways = len(read), len(tails)
        wide = None if names is None else [name for name in names for _ in tails]
        with nullcontext() if wide is None else self.seams.route(wide), self._sparingly():
            output = self.decoder(
                input_ids=given.repeat(rows, 1),
                attention_mask=given_mask.repeat(rows, 1),
                encoder_hidden_states=states.repeat_interleave(ways, 0),
                encoder_attention_mask=read_mask.repeat_interleave(ways, 0),
                use_cache=False,
            )
        found: Tensor = output.last_hidden_state.view(rows, ways, -1, states.shape[-1])
        kept = given_mask.bool()[:, 1:]
        return torch.cat([found[:, 0, :1], found[:, :, 1:][:, kept]], dim=1)


def open_language(model: nn.Module) -> LanguageModel:
    """Open a model that has a language-model head.

    Args:
        model: of transformers, loaded with its head.
    Returns:
        It, opened at its seams.
    Raises:
        CompatibilityError: it has no such head, or one that cannot be run at chosen positions.
    """
    paired = getattr(model.config, "is_encoder_decoder", False)
    return SequenceToSequence(model) if paired else LanguageModel(model)


def _padded(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Lay rows out as (R, T) ids and mask; what stands in the cells without a token is never read."""
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return pad_sequence(rows, batch_first=True), mask
