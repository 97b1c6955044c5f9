"""LoRA: a product of two narrow matrices beside each frozen linear map."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import ValidationInfo, field_validator
from torch import Tensor

from tunesmith.core.errors import CheckpointError, CompatibilityError, TargetError
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.methods.base import PREFIX, LayerMethod, PeftFolder
from tunesmith.models.delta import Delta
from tunesmith.models.linear import ConvSeam, EmbeddingSeam, LinearSeam
from tunesmith.models.lora_patches import BiasedLoraPatch, DoraPatch, LoraPatch
from tunesmith.models.patches import Patch, refuse_groups
from tunesmith.models.seams import Seams, matches
from tunesmith.models.starts import STARTS, leading_inputs, start_leading

# What changes PEFT's forward pass in ways that this method does not know.
_LACKING = (
    "target_parameters", "layer_replication", "trainable_token_indices", "megatron_config", "alora_invocation_tokens",
    "arrow_config", "use_qalora", "use_bdlora", "monteclora_config", "kasa_config",
)  # fmt: skip
_BIASES = {"none": "none", "all": "all", "adapted": "lora_only"}


@register("methods")
class Lora(LayerMethod):
    """Low-rank update of frozen linear maps.

    y = x W^T + b + s x A^T B^T with s = alpha / rank, or alpha / sqrt(rank) when `rank_stabilised`.
    With `dora`: y = m / ||W + s B A|| * (x W^T + s x A^T B^T) + b, one trained m and one norm per output.

    Source: Hu et al. 2021, arXiv:2106.09685, eq. 3; DoRA: Liu et al. 2024, arXiv:2402.09353, eq. 5 and section 4.3;
    rank-stabilised: Kalajdzievski 2023, arXiv:2312.03732; B's own rate: Hayou et al. 2024, arXiv:2402.12354.
    """

    name: ClassVar[str] = "lora"
    paper: ClassVar[str] = "Hu et al. 2021, arXiv:2106.09685"
    peft_type: ClassVar[str | None] = "LORA"
    leaves: ClassVar[tuple[str, ...]] = ("lora_A.weight", "lora_embedding_A")

    rank: int = setting(8, "Inner width of the update.", unit="count", ge=1, le=4096)
    alpha: float | None = setting(None, "Numerator of the scale alpha / rank; twice the rank when empty.", gt=0)
    dropout: float = setting(0.0, "Dropout on the input of A; not for embeddings.", unit="fraction", ge=0, lt=1)
    rank_stabilised: bool = setting(False, "Scale by alpha / sqrt(rank) instead of alpha / rank.")
    dora: bool = setting(False, "Train the length of each row of W + s B A apart from its direction.")
    init: Literal["default", "gaussian", "orthogonal", "pissa", "loftq", "activations"] = setting(
        "default",
        "Starting values: default (A random, B zero), gaussian, orthogonal (both random, product zero), pissa "
        "(leading part of W), loftq (what a quantised W lost), activations (A from the inputs on training batches).",
    )
    rank_pattern: dict[str, int] = setting(
        {}, "Ranks of layers that differ: name, end of a name, pattern with *, or re:REGEX to rank; the first wins."
    )
    alpha_pattern: dict[str, float] = setting(
        {}, "Alphas of layers that differ: name, end of a name, pattern with *, or re:REGEX to alpha; the first wins."
    )
    bias: Literal["none", "all", "adapted"] = setting(
        "none", "Biases that train besides: none, all of the model, or those of the adapted layers."
    )
    b_bias: bool = setting(False, "Give B a bias of its own; not with dora, not for embeddings.")
    b_rate_ratio: float = setting(1.0, "Learning rate of B over that of A (LoRA+); 16 in the paper.", gt=0)

    @field_validator("rank_pattern", "alpha_pattern")
    @classmethod
    def _positive(cls, pattern: dict[str, float]) -> dict[str, float]:
        for entry, value in pattern.items():
            if value <= 0:
                raise ValueError(f"'{entry}' = {value} must be above 0")
        return pattern

    @field_validator("b_bias")
    @classmethod
    def _alone(cls, b_bias: bool, info: ValidationInfo) -> bool:
        if b_bias and info.data.get("dora"):
            raise ValueError("dora scales W + s B A, which a bias of B is no part of; set one of dora and b_bias")
        return b_bias

    # Per layer ------------------------------------------------------------------------------------------------

    def layer_rank(self, path: str) -> int:
        """Return the rank of one layer.

        Args:
            path: its dotted name.
        Returns:
            By `rank_pattern`, else `rank`.
        """
        return _first(self.rank_pattern, path, "rank_pattern", self.rank)

    def layer_alpha(self, path: str) -> float:
        """Return alpha of one layer.

        Args:
            path: its dotted name.
        Returns:
            By `alpha_pattern`, else `alpha`, else twice its rank.
        """
        usual = 2.0 * self.layer_rank(path) if self.alpha is None else self.alpha
        return _first(self.alpha_pattern, path, "alpha_pattern", usual)

    def layer_scale(self, path: str) -> float:
        """Return the scale of one layer's product.

        Args:
            path: its dotted name.
        Returns:
            alpha / rank, or alpha / sqrt(rank).
        """
        rank = self.layer_rank(path)
        return self.layer_alpha(path) / (math.sqrt(rank) if self.rank_stabilised else rank)

    def chosen(self, seams: Seams) -> list[str]:
        """Find the maps to adapt, and check that every pattern means one of them."""
        paths = super().chosen(seams)
        for name in ("rank_pattern", "alpha_pattern"):
            for entry in getattr(self, name):
                if not any(matches(entry, path, name) for path in paths):
                    ends = ", ".join(sorted({path.rpartition(".")[2] for path in paths}))
                    raise TargetError(
                        f"{name}: '{entry}' matches none of the {len(paths)} adapted layers of "
                        f"{type(seams.model).__name__}. They end in: {ends}. Correct the entry or remove it."
                    )
        return paths

    def patch(self, seam: LinearSeam) -> Patch:
        """Build A and B of one map.

        Args:
            seam: the map.
        Returns:
            The patch.
        Raises:
            CompatibilityError: the layer is of a kind that an option does not serve.
        """
        self._check(seam)
        kind = DoraPatch if self.dora else BiasedLoraPatch if self.b_bias else LoraPatch
        patch = kind(seam, self.layer_rank(seam.path), self.layer_scale(seam.path), self.dropout)
        start = STARTS.get(self.init)
        if start is not None:
            start(patch, seam)
        if isinstance(patch, DoraPatch):
            patch.measure(seam)
        return patch

    def _check(self, seam: LinearSeam) -> None:
        refuse_groups(seam, "method lora")
        embedding = isinstance(seam, EmbeddingSeam)
        if embedding and self.b_bias:
            raise CompatibilityError(f"method lora: '{seam.path}' is an embedding; b_bias serves maps only.")
        if self.init == "activations" and (embedding or isinstance(seam, ConvSeam)):
            raise CompatibilityError(
                f"method lora: init 'activations' serves plain linear maps; '{seam.path}' is a "
                f"{type(seam.module).__name__}. Leave it out of `layers` or choose another init."
            )

    def extra(self, seams: Seams, paths: Sequence[str]) -> list[str]:
        """Return the biases that train.

        Args:
            seams: of the model.
            paths: of the adapted maps.
        Returns:
            Dotted names of parameters.
        """
        biases = [path for path, _ in seams.model.named_parameters() if path.rpartition(".")[2] == "bias"]
        adapted = {f"{path}.bias" for path in paths}
        return [path for path in biases if self.bias == "all" or (self.bias == "adapted" and path in adapted)]

    def warnings(self, seams: Seams) -> list[str]:
        """Warn of a rank above a layer's width, and of dropout that does nothing.

        Args:
            seams: of the model.
        Returns:
            At most two sentences.
        """
        found = []
        maps = [seams.linear[path] for path in self.chosen(seams)]
        wide = [seam for seam in maps if self.layer_rank(seam.path) > min(seam.width_in, seam.width_out)]
        if wide:
            rank = max(self.layer_rank(seam.path) for seam in wide)
            width = min(min(seam.width_in, seam.width_out) for seam in wide)
            found.append(
                f"method.rank={rank} is above the width of {len(wide)} of {len(maps)} layers (for example "
                f"'{wide[0].path}', narrowest width {width}): more parameters than training those layers in full."
            )
        tables = [seam.path for seam in maps if isinstance(seam, EmbeddingSeam)]
        if tables and self.dropout:
            found.append(f"method.dropout={self.dropout} does not apply to embeddings ('{tables[0]}').")
        return found

    # Training -------------------------------------------------------------------------------------------------

    @property
    def wants_full_precision(self) -> bool:
        """LoftQ starts from what quantising lost."""
        return self.init == "loftq"

    @property
    def data_driven(self) -> bool:
        """Whether `initialise` wants to see training batches."""
        return self.init == "activations"

    def initialise(self, delta: Delta, run: Callable[[], None]) -> None:
        """Turn A towards the largest directions of each layer's inputs; B stays zero.

        Args:
            delta: freshly attached by this method.
            run: sends a few batches through the model.
        """
        if not self.data_driven:
            return
        rank = max(self.layer_rank(path) for path in delta.patches)
        maps = {path: delta.seams.linear[path].module for path in delta.patches}
        for path, directions in leading_inputs(maps, run, rank).items():
            down, _ = delta.patches[path].pair  # type: ignore[misc]
            count = min(len(down), len(directions))
            with torch.no_grad():
                down[:count].copy_(directions[:count])

    def rate_ratio(self, parameter: str) -> float:
        """Return `b_rate_ratio` for B, 1 for all else.

        Args:
            parameter: its name in the delta.
        Returns:
            A positive number.
        """
        return self.b_rate_ratio if ".lora_B." in parameter or parameter.endswith("lora_embedding_B") else 1.0

    def decays(self, parameter: str) -> bool:
        """Say that DoRA's lengths of rows keep their size, also of kernels, where they are no vector."""
        return not parameter.endswith(".lora_magnitude_vector")

    # Saving ---------------------------------------------------------------------------------------------------

    def blank(self) -> Self:
        """Return the method without starting values that saved tensors replace anyway."""
        return self.model_copy(update={"init": "default"})

    def tensors(self, delta: Delta) -> dict[str, Tensor]:
        """Return what is saved, named as in a PEFT weights file; both pairs of PiSSA in one of twice the rank."""
        found = delta.state()
        for path, patch in delta.patches.items():
            assert isinstance(patch, LoraPatch)
            if patch.frozen is not None:
                down, up, _ = patch.product(delta.seams.linear[path])
                for name, factor in zip(patch.names, (down, up), strict=True):
                    found[f"{path}.{name}"] = factor.detach().cpu()
            if f"{path}.bias" in found:
                found[f"{path}.base_layer.bias"] = found.pop(f"{path}.bias")
        return {PREFIX + name: tensor for name, tensor in found.items()}

    def load(self, delta: Delta, tensors: Mapping[str, Tensor], where: str) -> None:
        """Take over saved tensors; PiSSA's pairs of twice the rank are split into what trains and what is taken off."""
        found = _plain_names(delta, tensors, where)
        if self.init == "pissa":
            for path, patch in delta.patches.items():
                assert isinstance(patch, LoraPatch)
                down, up = (f"{path}.{name}" for name in patch.names)
                rank = len(patch.pair[0])
                rows = len(found[down]) if down in found and up in found else 0
                if rows == rank:  # PEFT's, with its initial pair taken out of the base weights
                    start_leading(patch, delta.seams.linear[path])
                elif rows == 2 * rank:
                    patch.freeze(found[down][rank:], -found[up][:, rank:])
                    found[down], found[up] = found[down][:rank], found[up][:, :rank]
        delta.load(found, where)

    def to_peft(self, delta: Delta) -> dict[str, Any]:
        """Word the settings as a PEFT LoraConfig.

        Args:
            delta: attached by this method.
        Returns:
            The keys of adapter_config.json; layers that differ by full name, whatever pattern named them here.
        """
        pairs = 2 if self.init == "pissa" else 1  # as one LoRA of twice the rank and the same scale
        grown = math.sqrt(pairs) if self.rank_stabilised else pairs
        rank, alpha = self.rank, 2.0 * self.rank if self.alpha is None else self.alpha
        ranks = {path: self.layer_rank(path) for path in delta.patches}
        alphas = {path: self.layer_alpha(path) for path in delta.patches}
        return {
            **super().to_peft(delta),
            "r": pairs * rank,
            "lora_alpha": grown * alpha,
            "lora_dropout": self.dropout,
            "use_rslora": self.rank_stabilised,
            "use_dora": self.dora,
            "lora_bias": self.b_bias,
            "bias": _BIASES[self.bias],
            "rank_pattern": {f"^{re.escape(path)}": pairs * own for path, own in ranks.items() if own != rank},
            "alpha_pattern": {f"^{re.escape(path)}": grown * own for path, own in alphas.items() if own != alpha},
        }

    @classmethod
    def from_peft(cls, folder: PeftFolder) -> Self:
        """Read a PEFT LoraConfig.

        Args:
            folder: as read.
        Returns:
            The method.
        Raises:
            CheckpointError: an option that is not supported.
        """
        config = folder.config
        folder.refuse(_LACKING)
        if config.get("use_dora") and config.get("lora_bias"):
            raise CheckpointError(f"{folder.where}: 'use_dora' together with 'lora_bias' is not supported.")
        layers = cls.peft_layers(folder)
        patterns = {
            name: _peft_pattern(config.get(name) or {}, layers["layers"]) for name in ("rank_pattern", "alpha_pattern")
        }
        return cls(
            rank=int(config.get("r", 8)),
            alpha=float(config.get("lora_alpha", 8)),
            dropout=float(config.get("lora_dropout", 0.0)),
            rank_stabilised=bool(config.get("use_rslora")),
            dora=bool(config.get("use_dora")),
            init=_peft_start(folder),
            bias={theirs: ours for ours, theirs in _BIASES.items()}[config.get("bias", "none")],
            b_bias=bool(config.get("lora_bias")),
            **patterns,
            **layers,
        )


# PEFT's layout ------------------------------------------------------------------------------------------------


def _first(pattern: Mapping[str, Any], path: str, name: str, usual: Any) -> Any:
    """Return the value of the first entry that means a layer."""
    return next((value for entry, value in pattern.items() if matches(entry, path, name)), usual)


def _peft_pattern(pattern: Mapping[str, Any], layers: Sequence[str]) -> dict[str, Any]:
    """Word PEFT's regular expressions as entries here; those that mean no layer have no effect there either."""
    entries = {f"re:(.*\\.)?({key})": value for key, value in pattern.items()}
    return {entry: value for entry, value in entries.items() if any(matches(entry, path) for path in layers)}


def _peft_start(folder: PeftFolder) -> Literal["default", "pissa"]:
    """Tell weights that stand alone from those that need a base weight which PEFT changes as it loads."""
    start = str(folder.config.get("init_lora_weights", True)).lower()
    if start.startswith(("pissa_", "olora", "corda", "lora_ga", "loftq")):
        raise CheckpointError(
            f"{folder.where}: init_lora_weights = '{start}' changed the base weights when training began, and the "
            "folder does not hold that change. Save it with PEFT's path_initial_model_for_weight_conversion."
        )
    return "pissa" if start == "pissa" else "default"


def _plain_names(delta: Delta, tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return PEFT's tensors by the delta's names, without what PEFT saves twice or saves of the frozen model."""
    own = {name for name, _ in delta.named_parameters()}
    tied = {f"{path}.{leaf}" for path, leaf, _ in delta.places} - own
    found = {}
    for full, tensor in tensors.items():
        name = full.removeprefix(PREFIX)
        if name.endswith(".base_layer.weight"):
            _check_frozen(delta, name.removesuffix(".base_layer.weight"), tensor, where)
            continue
        if name.endswith(".base_layer.bias"):
            name = f"{name.removesuffix('.base_layer.bias')}.bias"
        if name not in tied and ".original_module." not in name and ".modules_to_save." not in name:
            found[name] = tensor
    return found


def _check_frozen(delta: Delta, path: str, saved: Tensor, where: str) -> None:
    """Check a frozen weight that PEFT saved besides, as it does for targeted embeddings."""
    seam = delta.seams.linear.get(path)
    if seam is None or seam.stored.shape != saved.shape or not _near(seam.stored.detach(), saved):
        shape = None if seam is None else tuple(seam.stored.shape)
        raise CheckpointError(
            f"{where}: the frozen weight of '{path}', {tuple(saved.shape)}, is saved besides and differs from the "
            f"model's ({shape}). Attach it to the base model it was made for, with as many tokens."
        )


def _near(ours: Tensor, saved: Tensor) -> bool:
    """Compare up to the rounding of a half-precision file."""
    return torch.allclose(saved.to(ours), ours, rtol=1e-2, atol=1e-6)
