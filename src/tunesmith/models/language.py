"""A model that predicts tokens: hidden states as any backbone's, and its own head, run where there is a label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from tunesmith.core.errors import CompatibilityError
from tunesmith.models.backbone import Backbone
from tunesmith.models.branching import Ends, branch, fork
from tunesmith.models.layout import RaggedBatch, ragged
from tunesmith.models.placing import moved
from tunesmith.models.prefixed import Prefix
from tunesmith.models.sharing import Lead, Shared, behind, common, read_of_prompt, share_prompt
from tunesmith.models.structure import is_causal

_CELLS = {"cpu": 1 << 21, "cuda": 1 << 26}  # logits of one chunk: they stay in the processor's cache, or fill a GPU
_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


@dataclass
class _Given(BaseModelOutputWithPastAndCrossAttentions):  # type: ignore[misc]
    """Hidden states handed to a model's head as if its body had computed them."""

    router_logits: Any = None


class LanguageModel(Backbone):
    """A model with a language-model head, opened at its seams.

    The head is whatever the model's forward does after its body: a map, a scale, a cap, a transformation before the
    map. It is run by the model itself, on hidden states that were computed before, at the positions that need it.

    Args:
        model: a transformers model for causal or masked language modelling.
        prove: check the fast path and the head now.
    Raises:
        CompatibilityError: the head reads more than its body's last hidden states.
    """

    apart: ClassVar[bool] = False  # whether what is read and what is written are sequences of their own

    def __init__(self, model: nn.Module, prove: bool = True) -> None:
        super().__init__(model, prove)
        if self.body is model:
            raise CompatibilityError(
                f"{type(model).__name__} has no language-model head. Choose a model that generates text (GPT- or "
                "Llama-like), or task text-classification."
            )
        self._speaker = self.speakers()[0]  # whose output the head reads
        self._shares = False
        self.leads: dict[str | None, Lead] = {}  # prompts that ran for the step in progress, by delta
        if prove:
            self._prove_head()
            self._shares = self._prove_sharing()

    @property
    def vocabulary(self) -> int:
        """V, how many tokens the head tells apart."""
        return int(self.model.config.get_text_config().vocab_size)  # type: ignore[union-attr,operator]

    def logits(self, hidden: Tensor) -> Tensor:
        """Run the head.

        Args:
            hidden: (M, D), of any positions.
        Returns:
            (M, V).
        """
        ids = torch.zeros(1, len(hidden), dtype=torch.int64, device=hidden.device)
        with self._answering(hidden[None]), self.seams.routing.quickly():
            found: Tensor = self.whole(ids, hidden.new_zeros(1, 1, hidden.shape[1]))
        return found

    def before_output(self, hidden: Tensor) -> Tensor:
        """Run the head up to its output map.

        Args:
            hidden: (M, D), of any positions.
        Returns:
            What the map over the vocabulary is given, (M, D).
        """
        found: list[Tensor] = []
        output: nn.Module = self.model.get_output_embeddings()  # type: ignore[operator]
        hook = output.register_forward_pre_hook(lambda _, given: found.append(given[0]))
        try:
            self.logits(hidden)
        finally:
            hook.remove()
        return found[0][0]

    def speakers(self) -> list[nn.Module]:
        """Return the modules whose output the head may read, the likeliest first."""
        return [self.body, *filter(None, [getattr(self.body, "decoder", None)])]  # OPT's head reads the decoder's

    def whole(self, ids: Tensor, read: Tensor | None = None) -> Tensor:
        """Run the model with its head on one row.

        Args:
            ids: (1, T).
            read: (1, S, D), states of an encoder; models without one have no use for them.
        Returns:
            Logits, (T, V).
        """
        found: Tensor = self.model(input_ids=ids, **self._no_cache).logits[0]
        return found

    @contextmanager
    def _answering(self, hidden: Tensor) -> Iterator[None]:
        speaker = self._speaker
        before = speaker.__dict__.get("forward")
        speaker.forward = lambda *args, **kwargs: _Given(last_hidden_state=hidden)
        try:
            yield
        finally:
            if before is None:
                del speaker.__dict__["forward"]
            else:
                speaker.forward = before

    @torch.no_grad()
    def _prove_head(self) -> None:
        """Compare the head on hidden states with the whole model on one row."""
        training = self.model.training
        self.model.eval()
        differences = [float("inf")]
        try:
            hidden, whole = self.one_row()
            for speaker in self.speakers():
                self._speaker = speaker
                try:
                    found = self.logits(hidden)
                except AttributeError:  # it asks its body for something else, as Mamba's does
                    continue
                differences.append(((found - whole).abs().max() / whole.abs().max()).item())
                if differences[-1] <= max(_TOLERANCE[whole.dtype], self._tolerance(whole.dtype)):
                    return
        finally:
            self.model.train(training)
        raise CompatibilityError(
            f"{type(self.model).__name__}: its head reads more than the last hidden states (logits differ by "
            f"{min(differences):.1e}), so it cannot be run at chosen positions. This architecture is not supported."
        )

    def one_row(self) -> tuple[Tensor, Tensor]:
        """Run one drawn row through the seams, and whole.

        Returns:
            Hidden states, (T, D), and logits, (T, V).
        """
        low = min(10, self.vocabulary - 1)
        ids = torch.randint(low, self.vocabulary, (7,), generator=torch.Generator().manual_seed(0))
        return self.hidden(ragged([ids])), self.whole(ids[None].to(self.device))

    def spared(self, batch: RaggedBatch) -> int:
        """Count the tokens that the rows begin with in common."""
        return common(batch, range(batch.layout.rows)) if self._parts_rows else 0

    @property
    def _parts_rows(self) -> bool:
        return self._shares and not self.rows_whole

    def before_learned(self, batch: RaggedBatch) -> Tensor:
        """Run the model and take the hidden states that the learned tokens are predicted from.

        Args:
            batch: R rows; it says which of its tokens are learned.
        Returns:
            (M, D), one per learned token, in the batch's order.
        """
        return self.hidden_at(batch, batch.here.places - 1)

    def hidden_at(self, batch: RaggedBatch, places: Tensor) -> Tensor:
        """Run the model and take the hidden states of some tokens; a prompt that rows have in common runs once.

        Args:
            batch: R rows of N tokens.
            places: (M,), which tokens.
        Returns:
            (M, D).
        """
        names = set(batch.layout.names or (self.seams.routing.active,))
        if names <= set(self.leads):
            return self._led(batch.to(self.device), moved(places, self.device))
        batch = batch.to(self.device)
        shared = share_prompt(batch) if self._parts_rows and self._plain(names) else None
        if shared is None:
            return super().hidden_at(batch, places)
        given = self._kept(batch)
        if given is not None:
            given = torch.empty_like(given[: shared.batch.layout.tokens]).index_copy_(0, shared.places, given)
        own = shared.places[moved(places, self.device)]
        return self._read(shared.batch.layout, own, lambda: self._shared(shared, given))

    def hidden_behind(self, batch: RaggedBatch, ends: Ends) -> Tensor:
        """Run rows that go on in several ways.

        Args:
            batch: R rows; what an encoder reads, where there is one.
            ends: token sequences that follow every row, none empty.
        Returns:
            (R, P, D): the state of each row's last token, then of the tokens of every ending, one after another.
        """
        names, active = batch.layout.names, self.seams.routing.active
        if names is not None and ends:  # each delta by itself: what rows begin with is its own
            ends_of = [(name, len(list(some))) for name, some in groupby(names)]
            starts = accumulate((size for _, size in ends_of), initial=0)
            return torch.cat([self._behind_of(name, batch.part(start, start + size), ends)
                              for (name, size), start in zip(ends_of, starts, strict=False)])  # fmt: skip
        if ends and self._parts_rows and self._plain([active]):
            return self._forked(batch.to(self.device), ends).view(batch.layout.rows, -1, self.width)
        wide = branch(batch, ends)
        return self.hidden_at(wide.batch, wide.places).view(batch.layout.rows, -1, self.width)

    def _behind_of(self, name: str | None, batch: RaggedBatch, ends: Ends) -> Tensor:
        with self.seams.routing.only(name):
            return self.hidden_behind(batch, ends)

    def _forked(self, batch: RaggedBatch, ends: Ends) -> Tensor:
        """Run each row once, what all begin with once for all, and the endings behind them."""
        active, attending = self.seams.routing.active, self.seams.attending
        lead = self.leads.get(active)
        same = self.spared(batch) if lead is None else lead.tokens
        prefixes = {} if lead is None else lead.prefixes
        if lead is None and same:
            prefixes = self._front(batch, same)[1]
        forked = fork(batch, ends, same)
        given = {**attending.prefixes, active or "": prefixes} if prefixes else attending.prefixes
        with attending.prefixed(given):
            return self._read(
                forked.batch.layout,
                forked.places,
                lambda: self._flat(forked.batch, self.proof.position_offset, forked.positions),
                [active],
            )

    @contextmanager
    def ahead(self, batch: RaggedBatch, name: str) -> Iterator[None]:
        """Run what all rows of a step begin with, once; the passes inside the block see what it leaves."""
        apart = self.below is None and self._plain([name])  # kept states are of whole rows
        lead = self._lead(batch) if apart and self.spared(batch) else None
        if lead is None:
            yield
            return
        self.leads[name] = lead
        try:
            yield
            lead.finish()
        finally:
            del self.leads[name]

    def _lead(self, batch: RaggedBatch) -> Lead:
        return Lead.of(*self._front(batch, self.spared(batch)))

    def _front(self, batch: RaggedBatch, same: int) -> tuple[Tensor, dict[nn.Module, Prefix]]:
        """Run what all rows begin with; return its states, zeros where nobody reads them, and its keys and values."""
        prompt, read = ragged([batch.ids[:same]]).to(self.device), read_of_prompt(batch, same).to(self.device)
        with self.seams.attending.recording() as calls:
            some = self._read(prompt.layout, read, lambda: self._flat(prompt, self.proof.position_offset))
        hidden = some.new_zeros(same, some.shape[1]).index_copy(0, read, some)
        return hidden, {call.module: (call.key[0], call.value[0]) for call in calls}

    def _led(self, batch: RaggedBatch, places: Tensor) -> Tensor:
        """Run rows behind the prompts that already ran."""
        active, names = self.seams.routing.active, batch.layout.names
        leads = {name: self.leads[name] for name in dict.fromkeys(names or (active,))}
        shared = behind(batch, leads if names else {None: leads[active]})
        prefixes = {name or "": lead.prefixes for name, lead in leads.items()}
        wanted, before = shared.places[places], sum(lead.tokens for lead in leads.values())
        own = wanted >= before  # the others are read from the prompts
        with self.seams.attending.prefixed({**self.seams.attending.prefixes, **prefixes}):
            rest = self._read(shared.batch.layout, wanted[own] - before, lambda: self._shared(shared))
        found = torch.where(own, before - 1 + own.cumsum(0), wanted)
        return torch.cat([*(lead.hidden for lead in leads.values()), rest])[found]

    def _shared(self, shared: Shared, given: Tensor | None = None) -> Tensor:
        names = shared.batch.layout.names
        with self.seams.route(names) if names is not None else nullcontext():
            return self._flat(shared.batch, self.proof.position_offset, shared.positions, given)

    @torch.no_grad()
    def _prove_sharing(self) -> bool:
        """Compare rows with a common beginning, run once, with the same rows run one by one."""
        if not self.proof.fast or not is_causal(self.body):
            return False
        draw, low = torch.Generator().manual_seed(0), min(10, self.vocabulary - 1)
        begin = torch.randint(low, self.vocabulary, (12,), generator=draw)
        ends = [torch.randint(low, self.vocabulary, (length,), generator=draw) for length in (3, 5, 3)]
        training = self.model.training
        self.model.eval()
        try:
            batch = ragged([torch.cat([begin, end]) for end in ends]).to(self.device)
            plain, shared = self.hidden(batch), share_prompt(batch)
            assert shared is not None
            found = self._shared(shared)[shared.places]
        except (CompatibilityError, RuntimeError, IndexError, ValueError, TypeError):
            return False
        finally:
            self.model.train(training)
        return bool((found - plain).abs().max() <= self._tolerance(plain.dtype) * plain.abs().max())

    def chunks(self, count: int) -> list[slice]:
        """Cut positions into chunks whose logits fit in little memory.

        Args:
            count: of positions.
        Returns:
            Slices that cover them; none for no position.
        """
        size = self._chunk
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]

    @property
    def _chunk(self) -> int:
        """Positions whose logits are computed at once. [count]"""
        return max(1, _CELLS.get(self.device.type, _CELLS["cuda"]) // self.vocabulary)

    @torch.no_grad()
    def nats(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss of every position, without gradients.

        Args:
            hidden: (M, D), of the positions before the targets.
            targets: (M,), token ids.
        Returns:
            (M,), -log p(target), float64 for float64 hidden states, else float32. [nats]
        """
        return _nats_in(self, hidden, targets, 0.0)

    def chances(self, states: Tensor, at: Tensor, tokens: Tensor) -> Tensor:
        """Compute log probabilities of chosen tokens, a few rows at a time, of the delta in use.

        Where gradients are wanted, the logits are not kept but computed again.

        Args:
            states: (R, P, D), P states of each row.
            at: (K,), which state of a row a token is predicted from.
            tokens: (K,), their ids.
        Returns:
            (R, K), float64 for float64 states, else float32. [nats, negative]
        """
        name, routing = self.seams.routing.active, self.seams.routing
        at, tokens = at.to(states.device), tokens.to(states.device)

        def some(part: Tensor) -> Tensor:
            with routing.only(name):  # also when it runs again, in the backward pass
                logits = self.logits(part.flatten(0, 1))
            exact = logits if logits.dtype == torch.float64 else logits.float()
            return exact.log_softmax(-1).view(len(part), -1, logits.shape[-1])[:, at, tokens]

        parts = states.split(max(1, self._chunk // max(1, states.shape[1])))
        if len(parts) == 1 or not torch.is_grad_enabled():
            return torch.cat([some(part) for part in parts])
        found: list[Tensor] = [checkpoint(some, part, use_reentrant=False) for part in parts]
        return torch.cat(found)

    def loss(
        self,
        hidden: Tensor,
        targets: Tensor,
        weights: Tensor,
        smoothing: float = 0.0,
        trained: Sequence[nn.Parameter] = (),
    ) -> Tensor:
        """Compute sum_i weights_i * -log p(target_i), a chunk of positions at a time.

        The logits of a chunk are gone before the next one's are computed: gradients are taken at once.

        Args:
            hidden: (M, D), of the positions before the targets.
            targets: (M,), token ids.
            weights: (M,), without gradient.
            smoothing: share of the target spread over all tokens. [fraction]
            trained: parameters that the head may read.
        Returns:
            A scalar with gradients for hidden and `trained`; they cannot be differentiated again.
        """
        if not torch.is_grad_enabled():
            return (_nats_in(self, hidden, targets, smoothing) * weights).sum()
        found: Tensor = _Loss.apply(self, hidden, targets, weights, smoothing, *trained)  # type: ignore[no-untyped-call]
        return found


def _nats(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return nn.functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)


def _nats_in(model: LanguageModel, hidden: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    parts = [_nats(model.logits(hidden[part]), targets[part], smoothing) for part in model.chunks(len(targets))]
    return torch.cat(parts) if parts else hidden.new_zeros(0)


class _Loss(torch.autograd.Function):
    """The weighted loss of many positions; gradients are computed chunk by chunk with the forward pass."""

    @staticmethod
    def forward(ctx: Any, model: LanguageModel, hidden: Tensor, targets: Tensor, weights: Tensor, smoothing: float,
                *trained: nn.Parameter) -> Tensor:  # fmt: skip
        """Sum the loss and keep its gradients."""
        gradient = torch.zeros_like(hidden)
        # In 16 bits the gradient of one token among thousands might be zero: it is kept as if the largest weight was 1.
        ctx.weight = weights.max().clamp_min(1e-30) if hidden.dtype.itemsize == 2 and len(weights) else 1.0
        weights = weights / ctx.weight
        own: list[Tensor | None] = [None] * len(trained)
        total = hidden.new_zeros((), dtype=torch.float64 if hidden.dtype == torch.float64 else torch.float32)
        for part in model.chunks(len(targets)):
            states = hidden[part].detach().requires_grad_()
            with torch.enable_grad():
                loss = (_nats(model.logits(states), targets[part], smoothing) * weights[part]).sum()
            gradient[part], *more = torch.autograd.grad(loss, [states, *trained], allow_unused=True)
            own = [_sum(old, new) for old, new in zip(own, more, strict=True)]
            total += loss.detach()
        ctx.gradients = (gradient, own)
        return total * ctx.weight

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Any, ...]:
        """Scale the kept gradients."""
        gradient, own = ctx.gradients
        scale = outputs[0] * ctx.weight
        return (
            None,
            (gradient * scale).to(gradient.dtype),
            None,
            None,
            None,
            *(None if one is None else one * scale.to(one.dtype) for one in own),
        )


def _sum(old: Tensor | None, new: Tensor | None) -> Tensor | None:
    return new if old is None else old if new is None else old + new
