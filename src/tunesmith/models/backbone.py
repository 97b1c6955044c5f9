"""A loaded model that turns ragged batches into hidden states, by the fast path once it has proved itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tunesmith.core.errors import CompatibilityError
from tunesmith.models.attention import flat_rows
from tunesmith.models.ending import Ending, last_block, read_tokens
from tunesmith.models.keeping import spared_memory
from tunesmith.models.layout import Layout, RaggedBatch, ragged
from tunesmith.models.placing import device_of, moved
from tunesmith.models.seams import Seams, count, open_seams
from tunesmith.models.structure import stacks

if TYPE_CHECKING:
    from tunesmith.models.depth import Depth
    from tunesmith.models.recomputing import Recomputing

# Agreement asked of the fast path, relative to the largest hidden state: rounding, not approximation.
_TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
_CASTING_TOLERANCE = 1e-5  # float64 models whose norms cast to float32


@dataclass(frozen=True)
class Proof:
    """What the check at load found.

    Args:
        fast: whether the flat path is used.
        position_offset: position of a row's first token.
        difference: largest relative difference between the paths.
        reason: why the padded path is used, empty when it is not.
    """

    fast: bool
    position_offset: int
    difference: float
    reason: str = ""


class Backbone:
    """A model opened at its seams; its head, where it has one, is left out.

    Args:
        model: a transformers model whose body returns `last_hidden_state`.
        prove: run the self-proving check now; otherwise the padded path is used.
    """

    def __init__(self, model: nn.Module, prove: bool = True) -> None:
        self.model = model
        self.body: nn.Module = getattr(model, "base_model", model)
        self.seams: Seams = open_seams(model)
        accepted = inspect.signature(self.body.forward).parameters
        self._takes_positions = "position_ids" in accepted
        self._no_cache = {"use_cache": False} if "use_cache" in accepted or self._is_decoder else {}
        self.below: Depth | None = None  # what frozen blocks gave before, while rows come again
        self.again: Recomputing | None = None  # blocks that run again for their gradients, to spare memory
        self.rows_whole = False  # whether rows run whole, each with what it begins with in common with others
        self.proof = self._prove() if prove else Proof(False, 0, 0.0, "not checked")
        self._ending = self._prove_ending()

    @property
    def _is_decoder(self) -> bool:
        return bool(getattr(self.model.config, "use_cache", False))

    @property
    def _pad(self) -> int | None:
        """The padding token; None where the config names none, or a number that the vocabulary does not have."""
        pad, count = getattr(self.model.config, "pad_token_id", None), getattr(self.model.config, "vocab_size", None)
        return pad if pad is not None and pad >= 0 and (count is None or pad < count) else None

    @property
    def width(self) -> int:
        """D of the hidden states."""
        return int(self.model.config.hidden_size)  # type: ignore[union-attr,arg-type]

    @property
    def parameters(self) -> int:
        """How many numbers the model has. [count]"""
        return count(self.model.parameters())

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return device_of(self.model)

    def spared(self, batch: RaggedBatch) -> int:
        """Return how many tokens of every row run once for all rows. [count]

        Args:
            batch: R rows of one delta.
        """
        return 0

    def ahead(self, batch: RaggedBatch, name: str) -> AbstractContextManager[None]:
        """Run what the rows of a step have in common before its passes, where the model can; see LanguageModel.

        Args:
            batch: the rows of the whole step, of one delta.
            name: of the delta, in use.
        Returns:
            A context for the passes; their gradients are complete when it ends.
        """
        return nullcontext()

    def hidden(self, batch: RaggedBatch) -> Tensor:
        """Run the model.

        Args:
            batch: R rows of N tokens together.
        Returns:
            Last hidden states, (N, D), in the batch's order of tokens.
        """
        batch = batch.to(self.device)
        with self.seams.route(batch.layout.names) if batch.layout.names is not None else nullcontext():
            if self.seams.routing.twice or not self.proof.fast:
                return self._padded(batch)
            return self._flat(batch, self.proof.position_offset, None, self._kept(batch))

    def read_only(self, batch: RaggedBatch) -> Tensor:
        """Run what reads: the model, or of an encoder and a decoder the encoder alone.

        Args:
            batch: R rows of N tokens together.
        Returns:
            Last hidden states, (N, D), in the batch's order of tokens.
        """
        return self.hidden(batch)

    def hidden_at(self, batch: RaggedBatch, places: Tensor) -> Tensor:
        """Run the model and take the hidden states of some tokens.

        The last block ends with these tokens where the model allows it.

        Args:
            batch: R rows of N tokens together.
            places: (M,), which tokens.
        Returns:
            (M, D).
        """
        return self._read(batch.layout, places, lambda: self.hidden(batch))

    def _read(
        self, layout: Layout, places: Tensor, run: Callable[[], Tensor], names: Sequence[str | None] = ()
    ) -> Tensor:
        """Take some tokens' states, (M, D), of a pass that gives those of all tokens in the layout.

        The deltas are those of the layout, or the names given.
        """
        names = names or layout.names or (self.seams.routing.active,)
        whole = self.again is not None or self.seams.routing.twice or not self._plain(names)
        ending = None if whole else self._ending
        read = None if ending is None else read_tokens(layout, places, self.device)
        if ending is None or read is None:
            return run()[moved(places, self.device)]
        with ending.reading(read):
            return run()[read.order]

    def _plain(self, names: Iterable[str | None]) -> bool:
        """Say whether deltas bring no soft prompt, which would stand before the rows."""
        return all(name is None or self.seams.deltas[name].prompt is None for name in names)

    @contextmanager
    def differentiable_twice(self) -> Iterator[None]:
        """Run the model by plain operations inside the block, whose gradients can be differentiated again."""
        routing = self.seams.routing
        before, routing.twice = routing.twice, True
        try:
            with sdpa_kernel(SDPBackend.MATH):
                yield
        finally:
            routing.twice = before

    def flat(self, batch: RaggedBatch) -> Tensor:
        """Run the model on the fast path, from its embeddings.

        Args:
            batch: R rows of N tokens together, on the model's device.
        Returns:
            (N, D).
        """
        return self._flat(batch, self.proof.position_offset)

    def _kept(self, batch: RaggedBatch) -> Tensor | None:
        """What frozen blocks gave for the rows before, (N, D), where that is kept."""
        return None if self.below is None else self.below.of(batch)

    def _flat(
        self, batch: RaggedBatch, offset: int, places: Tensor | None = None, given: Tensor | None = None
    ) -> Tensor:
        """Run rows without padding, at other positions than their own or from kept states where these are given."""
        positions = moved(batch.layout.positions(offset), batch.ids.device) if places is None else places + offset
        routing, below = self.seams.routing, self.below
        started = nullcontext() if given is None or below is None else below.standing_in(given)
        with self._sparingly(), started, flat_rows(routing, batch.layout):
            return self._run_flat(batch, positions)

    def _run_flat(self, batch: RaggedBatch, positions: Tensor) -> Tensor:
        """Call the model without padding; positions are (N,), the answer (N, D)."""
        extra = {} if batch.segments is None else {"token_type_ids": batch.segments[None]}
        output = self.body(input_ids=batch.ids[None], position_ids=positions[None], **extra, **self._no_cache)
        hidden: Tensor = output.last_hidden_state[0]
        return hidden

    @contextmanager
    def _sparingly(self) -> Iterator[None]:
        """Run faster forms of the same functions, and keep little for the backward pass."""
        if self.seams.routing.twice:
            yield
            return
        with self.seams.routing.quickly(), spared_memory() if self.again is None else self.again.passes():
            yield

    def _padded(self, batch: RaggedBatch) -> Tensor:
        mask = batch.layout.padded_mask().to(batch.ids.device)  # (R, T)
        ids = torch.zeros(mask.shape, dtype=torch.int64, device=mask.device)
        ids.fill_(0 if self._pad is None else self._pad)
        ids[mask] = batch.ids
        extra = {}
        if batch.segments is not None:
            extra["token_type_ids"] = torch.zeros_like(ids).masked_scatter_(mask, batch.segments)
        with self._sparingly():
            output = self.body(input_ids=ids, attention_mask=mask.long(), **extra, **self._no_cache)
        hidden: Tensor = output.last_hidden_state[mask]
        return hidden

    @torch.no_grad()
    def _prove(self) -> Proof:
        """Run three rows through both paths; the fast one is used only if it gives the same numbers."""
        if not self.seams.attention or not self._takes_positions:
            return Proof(False, 0, 0.0, "the model does not use transformers' attention interface with positions")
        training = self.model.training
        self.model.eval()
        try:
            return self._compare(self.three_rows())
        finally:
            self.model.train(training)

    def _compare(self, batch: RaggedBatch) -> Proof:
        batch = batch.to(self.device)
        slow = self._padded(batch)
        scale = slow.abs().max().item()
        best, reason = float("inf"), ""
        for offset in (0, *([self._pad + 1] if self._pad is not None else [])):  # RoBERTa counts positions from pad + 1
            try:
                fast = self._flat(batch, offset)
            except (CompatibilityError, RuntimeError, IndexError, ValueError, TypeError) as error:
                reason = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
                continue
            difference = (fast - slow).abs().max().item() / scale
            if difference <= self._tolerance(slow.dtype):
                return Proof(True, offset, difference)
            best = min(best, difference)
        return Proof(False, 0, best, reason or f"the fast path differs by {best:.1e}")

    @torch.no_grad()
    def _prove_ending(self) -> Ending | None:
        """Let the last block end with one token of each row and compare; None where that does not give the same."""
        ending = last_block(self.body, self.seams) if self.proof.fast else None
        if ending is None:
            return None
        batch, training = self.three_rows().to(self.device), self.model.training
        places = torch.tensor(batch.layout.starts[1:], device=self.device) - 1
        self.model.eval()
        try:
            whole = self.hidden(batch)[places]
            tolerance = self._tolerance(whole.dtype)
            read = read_tokens(batch.layout, places, self.device)
            assert read is not None
            with ending.reading(read):
                short = self.hidden(batch)
        except (CompatibilityError, RuntimeError, IndexError, ValueError, TypeError):
            return None
        finally:
            self.model.train(training)
        same = short.shape == whole.shape and (short - whole).abs().max() <= tolerance * whole.abs().max()
        return ending if same else None

    def three_rows(self) -> RaggedBatch:
        """Return rows to try the model with, of different, partly equal length where lengths may differ."""
        vocabulary = int(self.model.config.vocab_size)  # type: ignore[union-attr,arg-type]
        draw = torch.Generator().manual_seed(0)
        low = min(10, vocabulary - 1)  # without special tokens if possible
        return ragged([torch.randint(low, vocabulary, (length,), generator=draw) for length in (7, 5, 7)])

    def _tolerance(self, dtype: torch.dtype) -> float:
        """Return how far two right paths may lie apart; in 16 bits the rounding of every block adds up."""
        casting = dtype == torch.float64 and any(hasattr(module, "variance_epsilon") for module in self.model.modules())
        if casting:
            return _CASTING_TOLERANCE
        blocks = max((len(stack) for stack in stacks(self.body)), default=0)
        return max(_TOLERANCE[dtype], blocks * torch.finfo(dtype).eps)


def pool(hidden: Tensor, layout: Layout, how: str) -> Tensor:
    """Reduce each row's hidden states to one vector.

    Args:
        hidden: (N, D).
        layout: of R rows.
        how: "mean", "cls" (first token) or "last".
    Returns:
        (R, D).
    """
    starts = torch.tensor(layout.starts, device=hidden.device)
    if how == "cls":
        return hidden[starts[:-1]]
    if how == "last":
        return hidden[starts[1:] - 1]
    lengths = torch.tensor(layout.lengths, device=hidden.device)
    if hidden.device.type == "cuda":  # index_add_ would sum in an order of its own at every run
        means: Tensor = torch.segment_reduce(hidden, "mean", lengths=lengths, axis=0)
        return means
    rows = torch.repeat_interleave(torch.arange(layout.rows, device=hidden.device), lengths)
    sums = hidden.new_zeros(layout.rows, hidden.shape[-1]).index_add_(0, rows, hidden)
    return sums / lengths[:, None].to(hidden.dtype)


def length_sorted(lengths: Sequence[int], tokens: int, rows: int, padded: bool = False) -> list[list[int]]:
    """Cut examples into batches of similar length, for passes where order does not matter.

    Args:
        lengths: tokens per example.
        tokens: most tokens in a batch.
        rows: most examples in a batch.
        padded: whether each example counts as much as its batch's longest one.
    Returns:
        Example numbers per batch.
    """
    batches: list[list[int]] = []
    used = tokens
    for example in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        before = len(batches[-1]) * lengths[example] if padded and batches else used
        if not batches or before + lengths[example] > tokens or len(batches[-1]) >= rows:
            batches.append([])
            used = 0
        batches[-1].append(example)
        used += lengths[example]
    return batches
