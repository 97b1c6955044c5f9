"""Trainable tokens: chosen rows of the table of embeddings train, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from tunesmith.core.errors import CheckpointError, CompatibilityError, TargetError, nearest
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.methods.base import PREFIX, Method, PeftFolder
from tunesmith.models.delta import Delta
from tunesmith.models.linear import EmbeddingSeam, LinearSeam
from tunesmith.models.patches import Patch
from tunesmith.models.seams import Seams, matches

_LEAF = "trainable_tokens_delta"


@register("methods")
class TrainableTokens(Method):
    """Train the embeddings of chosen tokens, for example of new ones; a tied output map takes them over.

    Add new tokens to the model first: `tunesmith.models.tokens.add_tokens`.

    Source: Hugging Face PEFT's method of this name; there is no paper.
    """

    name: ClassVar[str] = "trainable-tokens"
    needs: ClassVar[frozenset[str]] = frozenset({"tokens"})
    peft_type: ClassVar[str | None] = "TRAINABLE_TOKENS"
    example: ClassVar[dict[str, Any]] = {"token_indices": tuple(range(5, 60))}

    token_indices: tuple[int, ...] = setting((), "Ids of the tokens that train.")
    tokens: tuple[str, ...] = setting((), "Tokens that train, as the tokenizer's vocabulary writes them.")
    layers: str | tuple[str, ...] = setting(
        "auto", "Tables whose rows train, by name or end of name; auto is the model's input embeddings."
    )

    def attach(self, seams: Seams, name: str = "default") -> Delta:
        """Attach a copy of the chosen rows.

        Args:
            seams: of the model.
            name: of the delta.
        Returns:
            The delta.
        Raises:
            TargetError: no token is chosen, or one that the model does not have.
            CompatibilityError: the model reads no tokens.
        """
        ids = torch.tensor(self.ids(seams))
        with seams.bare():
            patches = self._patches(seams, ids)
        return seams.attach(name, {path: _ready(patch) for path, patch in patches.items()})

    def _patches(self, seams: Seams, ids: Tensor) -> dict[str, nn.Module]:
        """Build the rows of every table, and what follows them at tied maps."""
        home = _input_table(seams)
        tied = [path for path, seam in seams.linear.items() if path != home and _same(seam, seams.linear[home])]
        chosen = [home] if self.layers == "auto" else self._tables(seams)
        followers = tied if home in chosen else []
        patches: dict[str, nn.Module] = {}
        for path in [path for path in chosen if path not in followers]:
            _check_range(ids, seams.linear[path])
            patches[path] = TokenRows(seams.linear[path], ids)
        patches.update((path, FollowingRows(patches[home], home)) for path in followers)
        return patches

    def ids(self, seams: Seams) -> list[int]:
        """Settle which tokens train.

        Args:
            seams: of the model; its tokenizer reads `tokens`.
        Returns:
            Their ids, each once.
        Raises:
            TargetError: none are chosen, one stands there twice or is unknown, or no tokenizer can tell.
        """
        found = [*self.token_indices, *self._looked_up(seams.tokenizer)]
        if not found:
            raise TargetError(
                "method trainable-tokens: no token is chosen, so nothing would train. Give token_indices=(ids) or "
                "tokens=(texts)."
            )
        twice = sorted({number for number in found if found.count(number) > 1})
        if twice:
            raise TargetError(f"method trainable-tokens: the ids {twice[:5]} are chosen twice; give each token once.")
        return found

    def _looked_up(self, tokenizer: Any) -> Iterator[int]:
        if self.tokens and tokenizer is None:
            raise TargetError(
                f"method.tokens={list(self.tokens[:3])} needs the model's tokenizer, which is not known here. Give "
                "token_indices, or set tunesmith.models.seams.open_seams(model).tokenizer first."
            )
        vocabulary = tokenizer.get_vocab() if self.tokens else {}
        for token in self.tokens:
            if token not in vocabulary:
                near = nearest(token, vocabulary)
                raise TargetError(
                    f"method.tokens: '{token}' is not in the vocabulary ({len(vocabulary)} tokens)"
                    + (f"; did you mean '{near}'?" if near else ".")
                    + " New tokens are added first, with tunesmith.models.tokens.add_tokens(model, tokenizer, tokens)."
                )
            yield vocabulary[token]

    def _tables(self, seams: Seams) -> list[str]:
        found = seams.select(self.layers)
        others = [path for path in found if not isinstance(seams.linear[path], EmbeddingSeam)]
        if others:
            raise TargetError(
                f"layers: '{others[0]}' is no table of embeddings, so it has no rows of tokens. A tied output map "
                "follows by itself; name only tables, or leave 'auto'."
            )
        return found

    def saved(self, delta: Delta) -> Self:
        """Return the method with the tokens' ids, so that no tokenizer is needed to load it.

        Args:
            delta: attached by this method.
        Returns:
            The method as it is written.
        """
        return self.model_copy(update={"token_indices": tuple(_rows(delta)[0].ids.tolist()), "tokens": ()})

    def tensors(self, delta: Delta) -> dict[str, Tensor]:
        """Return what is saved: the rows, again under the name of every tied map, as PEFT wants them.

        Args:
            delta: attached by this method.
        Returns:
            Name to tensor, on the CPU.
        """
        found = super().tensors(delta)
        copies = _copies(delta)
        return found | {copy: found[original].clone() for copy, original in copies.items()}

    def load(self, delta: Delta, tensors: Mapping[str, Tensor], where: str) -> None:
        """Take over saved rows, for tied maps from their table; a CheckpointError when the two differ."""
        copies = _copies(delta)
        for copy, original in copies.items():
            if copy in tensors and original in tensors and not torch.equal(tensors[copy], tensors[original]):
                raise CheckpointError(
                    f"{where}: '{copy}' and '{original}' differ, but the model's two maps share one weight. "
                    "It was made for a model whose weights are not tied."
                )
        super().load(delta, {name: tensor for name, tensor in tensors.items() if name not in copies}, where)

    def to_peft(self, delta: Delta) -> dict[str, Any]:
        """Word the settings as a PEFT TrainableTokensConfig.

        Args:
            delta: attached by this method.
        Returns:
            The keys of adapter_config.json.
        """
        tables = [path for path, patch in delta.patches.items() if isinstance(patch, TokenRows)]
        targets = tables[0] if len(tables) == 1 else tables  # PEFT takes a list of table names for a mistake
        return {"token_indices": _rows(delta)[0].ids.tolist(), "target_modules": targets, "init_weights": True}

    @classmethod
    def from_peft(cls, folder: PeftFolder) -> Self:
        """Read a PEFT TrainableTokensConfig.

        Args:
            folder: as read.
        Returns:
            The method.
        """
        targets = folder.config.get("target_modules") or ()
        entries = [f"re:{targets}"] if isinstance(targets, str) else list(targets)
        stored = folder.modules((_LEAF,))  # tied maps among them, which nobody targeted
        tables = tuple(path for path in stored if any(matches(entry, path, "target_modules") for entry in entries))
        return cls(token_indices=tuple(folder.config.get("token_indices") or ()), layers=tables or "auto")


class RowsPatch(Patch):
    """Other rows for some tokens, at a table of embeddings or at an output map over the same tokens."""

    @property
    def table(self) -> TokenRows:
        """The patch that holds the rows."""
        raise NotImplementedError

    def forward(self, x: Tensor, seam: LinearSeam) -> Tensor:
        """Compute the map with the trained rows in the place of the frozen ones."""
        rows, y = self.table.rows, seam.base(x)
        if seam.looks_up:
            hit, place = self.table.find(x)
            trained = nn.functional.embedding(place, rows) * seam.scale
            return torch.where(hit[..., None], trained.to(y.dtype), y)
        logits = x.to(rows.dtype) @ rows.t()
        if seam.bias is not None:
            logits = logits + seam.bias[self.table.ids]
        return y.index_copy(-1, self.table.ids, logits.to(y.dtype))

    def weight_change(self, seam: LinearSeam) -> Tensor:
        """Return what merging adds to W, (out, in); zero but for the trained rows."""
        ids, stored = self.table.ids, seam.stored  # (V, D) at a table and at an output map
        change = torch.zeros_like(stored, dtype=seam.dtype).index_copy(0, ids, self.table.rows - stored[ids])
        return change.t() if seam.transposed else change

    @torch.no_grad()
    def write(self, seam: LinearSeam) -> None:
        """Write the rows into the weight: exact, where adding the change would round."""
        seam.stored.index_copy_(0, self.table.ids, self.table.rows.to(seam.stored.dtype))


class TokenRows(RowsPatch):
    """The trained rows of one table; the name is PEFT's.

    Args:
        seam: the table.
        ids: of the tokens, each once.
    """

    ids: Tensor
    ordered: Tensor
    order: Tensor

    def __init__(self, seam: LinearSeam, ids: Tensor) -> None:
        super().__init__()
        ids = ids.to(seam.stored.device)
        self.trainable_tokens_delta = nn.Parameter(seam.stored.detach()[ids].to(seam.dtype))
        ordered, order = ids.sort()
        for name, tensor in (("ids", ids), ("ordered", ordered), ("order", order)):
            self.register_buffer(name, tensor, persistent=False)

    @property
    def table(self) -> TokenRows:
        """This patch."""
        return self

    @property
    def rows(self) -> Tensor:
        """The trained rows, (tokens, D)."""
        return self.trainable_tokens_delta

    def find(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Find the trained tokens in a batch.

        Args:
            x: ids, any shape.
        Returns:
            Which of them train, and the number of each one's row; both of the shape of x.
        """
        place = torch.searchsorted(self.ordered, x.long()).clamp_(max=len(self.ordered) - 1)
        return self.ordered[place] == x, self.order[place]


class FollowingRows(RowsPatch):
    """The rows of a table at another map that shares its weight.

    Args:
        leader: holds the rows.
        path: of the table.
    """

    def __init__(self, leader: nn.Module, path: str) -> None:
        super().__init__()
        self._leader = [leader]  # in a list: its parameters are the leader's, and train and save there
        self.follows = path

    @property
    def table(self) -> TokenRows:
        """The leader."""
        return self._leader[0]  # type: ignore[return-value]


def _copies(delta: Delta) -> dict[str, str]:
    """Map what PEFT calls the rows at a tied map to what they are called at their table."""
    leaders = {path: patch.follows for path, patch in delta.patches.items() if isinstance(patch, FollowingRows)}
    return {f"{PREFIX}{path}.{_LEAF}": f"{PREFIX}{leader}.{_LEAF}" for path, leader in leaders.items()}


def _ready(patch: nn.Module) -> Callable[[LinearSeam], nn.Module]:
    return lambda seam: patch


def _same(seam: LinearSeam, other: LinearSeam) -> bool:
    return seam.stored is other.stored


def _rows(delta: Delta) -> list[TokenRows]:
    return [patch for patch in delta.patches.values() if isinstance(patch, TokenRows)]


def _input_table(seams: Seams) -> str:
    """Return the path of the model's input embeddings."""
    try:
        table = seams.model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        table = None
    for path, seam in seams.linear.items():
        if seam.module is table and isinstance(seam, EmbeddingSeam):
            return path
    raise CompatibilityError(
        f"method trainable-tokens: {type(seams.model).__name__} has no table of input embeddings over tokens. Choose "
        "another method, for example lora."
    )


def _check_range(ids: Tensor, seam: LinearSeam) -> None:
    beyond = ids[(ids < 0) | (ids >= len(seam.stored))].tolist()
    if beyond:
        raise TargetError(
            f"token_indices: {beyond[:5]} are no rows of '{seam.path}', which has ids 0 to {len(seam.stored) - 1}. "
            "New tokens are added first, with tunesmith.models.tokens.add_tokens(model, tokenizer, tokens)."
        )
