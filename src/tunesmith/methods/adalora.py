"""AdaLoRA: low-rank updates whose ranks move to the layers that need them while they train."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self, cast

import torch
from pydantic import ValidationInfo, field_validator
from torch import Tensor, nn

from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.methods.base import PREFIX, LayerMethod, PeftFolder
from tunesmith.models.delta import Delta
from tunesmith.models.linear import LinearSeam
from tunesmith.models.patches import LowRankPatch, Patch, parameter, refuse_groups

_PEFT_STEPS = 10_000  # PEFT counts its phases in steps; ours are shares of the run, written as of so many steps


@register("methods")
class AdaLora(LayerMethod):
    """Low-rank update in the form of a singular value decomposition, its singular values pruned by importance.

    y = x W^T + b + (alpha / initial_rank) x (E A)^T B^T, with E = 0 at the start. While training, the ranks of all
    layers together fall from initial_rank to target_rank per layer; those that matter least go first, wherever they
    are. The best epoch may lie before that: its delta then has more ranks than the target.

    Source: Zhang et al. 2023, arXiv:2303.10512, eq. 3, 4, 8 to 12. Differs, as the authors' program does: the
    penalty is the mean norm over all A and B, not squared.
    """

    name: ClassVar[str] = "adalora"
    paper: ClassVar[str] = "Zhang et al. 2023, arXiv:2303.10512"
    peft_type: ClassVar[str | None] = "ADALORA"
    leaves: ClassVar[tuple[str, ...]] = ("lora_E", "lora_A", "lora_B")

    initial_rank: int = setting(12, "Rank of every layer at the start.", unit="count", ge=1, le=4096)
    target_rank: int = setting(8, "Mean rank of the layers at the end.", unit="count", ge=1, validate_default=True)
    alpha: float | None = setting(None, "Numerator of the scale; twice the initial rank when empty.", gt=0)
    dropout: float = setting(0.0, "Dropout on the input of A.", unit="fraction", ge=0, lt=1)
    initial_fraction: float = setting(0.1, "Share of the steps before the first rank goes.", ge=0, lt=1)
    final_fraction: float = setting(
        0.3, "Share of the steps at the end in which the ranks stay.", ge=0, lt=1, validate_default=True
    )
    interval: int = setting(1, "Steps between two prunings.", unit="steps", ge=1)
    beta1: float = setting(0.85, "How slowly the mean importance follows.", gt=0, lt=1)
    beta2: float = setting(0.85, "How slowly the uncertainty of the importance follows.", gt=0, lt=1)
    orthogonal_weight: float = setting(0.5, "Weight of the penalty that keeps A and B orthogonal.", ge=0)

    @field_validator("target_rank")
    @classmethod
    def _at_most_the_initial(cls, value: int, info: ValidationInfo) -> int:
        if value > info.data.get("initial_rank", value):
            raise ValueError(f"It must be at most initial_rank ({info.data['initial_rank']})")
        return value

    @field_validator("final_fraction")
    @classmethod
    def _leaves_steps_between(cls, value: float, info: ValidationInfo) -> float:
        if value + info.data.get("initial_fraction", 0.0) >= 1:
            raise ValueError(f"With initial_fraction ({info.data['initial_fraction']}) it must stay below 1")
        return value

    @property
    def scale(self) -> float:
        """alpha / initial_rank, as PEFT rounds it."""
        return (2.0 * self.initial_rank if self.alpha is None else self.alpha) / (self.initial_rank + 1e-5)

    def patch(self, seam: LinearSeam) -> Patch:
        """Build A, B and E of one map.

        Args:
            seam: the map.
        Returns:
            The patch.
        Raises:
            CompatibilityError: the map is a convolution in groups.
        """
        refuse_groups(seam, "method adalora")
        return AdaLoraPatch(seam, self.initial_rank, self.scale, self.dropout)

    # Training -------------------------------------------------------------------------------------------------

    def phases(self, total: int) -> tuple[int, int]:
        """Return between which steps ranks go.

        Args:
            total: steps of the run. [count]
        Returns:
            The last step of the first phase, and the step of the last pruning.
        """
        last = max(1, total - round(self.final_fraction * total))
        return min(round(self.initial_fraction * total), last - 1), last

    def budget(self, step: int, total: int, maps: int, ranks: int | None = None) -> int:
        """Return how many ranks all maps may have together; it falls with the third power of the steps left.

        Args:
            step: 1 for the first.
            total: steps of the run. [count]
            maps: adapted ones. [count]
            ranks: that they started with together; initial_rank each when None. [count]
        Returns:
            A number of ranks.
        Source: eq. 12.
        """
        ranks = maps * self.initial_rank if ranks is None else ranks
        target = min(ranks, maps * self.target_rank)
        first, last = self.phases(total)
        left = min(1.0, max(0.0, 1 - (step - first) / (last - first)))
        return int((ranks - target) * left**3 + target)

    def penalty(self, delta: Delta) -> Tensor | None:
        """Return how far A and B are from orthogonal, weighted.

        Args:
            delta: attached by this method.
        Returns:
            weight * mean of ||A A^T - I|| and ||B^T B - I|| over the maps; None when the weight is 0.
        """
        if not self.orthogonal_weight:
            return None
        factors = [rows for patch in _patches(delta) for rows in (patch.lora_A, patch.lora_B.t())]
        by_rank: dict[int, list[Tensor]] = {}
        for rows in factors:
            by_rank.setdefault(len(rows), []).append(rows @ rows.t())
        norms = [
            (torch.stack(found) - torch.eye(rank, dtype=found[0].dtype, device=found[0].device)).flatten(1).norm(dim=1)
            for rank, found in by_rank.items()
        ]
        return self.orthogonal_weight * torch.cat(norms).mean()

    def adjust(self, delta: Delta, step: int, total: int) -> None:
        """Note the importance of every rank, and take the least important ones away.

        Args:
            delta: attached by this method.
            step: 1 for the first.
            total: steps of the run. [count]
        """
        first, last = self.phases(total)
        patches = _patches(delta)
        if step < last or step == 1:
            _observe(patches, self.beta1, self.beta2)
        if step == last or (first < step < last and step % self.interval == 0):
            ranks = sum(len(patch.lora_E) for patch in patches)
            _keep_best(patches, self.budget(step, total, len(patches), ranks))
        elif step > last:
            for patch in patches:
                patch.prune()

    def training_state(self, delta: Delta) -> dict[str, Any]:
        """Return how much every rank has mattered, and which ranks are left."""
        patches = dict(zip(delta.patches, _patches(delta), strict=True))
        return {path: {"averages": patch.averages, "kept": patch.kept} for path, patch in patches.items()}

    def resume(self, delta: Delta, state: Mapping[str, Any]) -> None:
        """Take over how much every rank has mattered."""
        for path, patch in zip(delta.patches, _patches(delta), strict=True):
            device = patch.lora_E.device
            pairs = state[path]["averages"].items()
            patch.averages = {name: (mean.to(device), doubt.to(device)) for name, (mean, doubt) in pairs}
            kept = state[path]["kept"]
            patch.kept = None if kept is None else kept.to(device)

    # Saving ---------------------------------------------------------------------------------------------------

    def tensors(self, delta: Delta) -> dict[str, Tensor]:
        """Return what is saved: ranks whose singular value is zero are left out, as PEFT does.

        Args:
            delta: attached by this method.
        Returns:
            Name to tensor, on the CPU.
        """
        found = super().tensors(delta)
        for path, rows in _used(delta).items():
            name = f"{PREFIX}{path}."
            for leaf in ("lora_A", "lora_E"):
                found[name + leaf] = found[name + leaf][rows]
            found[f"{name}lora_B"] = found[f"{name}lora_B"][:, rows]
        return found

    def load(self, delta: Delta, tensors: Mapping[str, Tensor], where: str) -> None:
        """Take over saved tensors; the delta's ranks become theirs."""
        for path, patch in delta.patches.items():
            saved = tensors.get(f"{PREFIX}{path}.lora_E")
            if saved is not None and saved.dim() == 2:
                cast(AdaLoraPatch, patch).cut(len(saved))
        super().load(delta, tensors, where)

    def to_peft(self, delta: Delta) -> dict[str, Any]:
        """Word the settings as a PEFT AdaLoraConfig.

        Args:
            delta: attached by this method.
        Returns:
            The keys of adapter_config.json.
        """
        pattern = {
            f"{path}.lora_E": rows.tolist() + [False] * (self.initial_rank - len(rows))
            for path, rows in _used(delta).items()
        }
        return {
            **super().to_peft(delta),
            "init_r": self.initial_rank,
            "target_r": self.target_rank,
            "lora_alpha": 2.0 * self.initial_rank if self.alpha is None else self.alpha,
            "lora_dropout": self.dropout,
            "bias": "none",
            "total_step": _PEFT_STEPS,
            "tinit": round(self.initial_fraction * _PEFT_STEPS),
            "tfinal": round(self.final_fraction * _PEFT_STEPS),
            "deltaT": self.interval,
            "beta1": self.beta1,
            "beta2": self.beta2,
            "orth_reg_weight": self.orthogonal_weight,
            "rank_pattern": None if all(all(rows) for rows in pattern.values()) else pattern,
        }

    @classmethod
    def from_peft(cls, folder: PeftFolder) -> Self:
        """Read a PEFT AdaLoraConfig.

        Args:
            folder: as read.
        Returns:
            The method; the ranks that were kept show in the tensors.
        Raises:
            CheckpointError: an option that is not supported.
        """
        config = folder.config
        folder.refuse(("use_dora", "target_parameters", "lora_bias", "layer_replication"))
        first, final = int(config.get("tinit", 0)), int(config.get("tfinal", 0))
        total = max(int(config.get("total_step") or 0), first + final + 1)
        return cls(
            initial_rank=int(config.get("init_r", 12)),
            target_rank=int(config.get("target_r", 8)),
            alpha=float(config.get("lora_alpha", 8)),
            dropout=float(config.get("lora_dropout", 0.0)),
            initial_fraction=first / total,
            final_fraction=final / total,
            interval=int(config.get("deltaT", 1)),
            beta1=float(config.get("beta1", 0.85)),
            beta2=float(config.get("beta2", 0.85)),
            orthogonal_weight=float(config.get("orth_reg_weight", 0.5)),
            **cls.peft_layers(folder),
        )


class AdaLoraPatch(LowRankPatch):
    """A, B and E of one linear map, and how much each rank has mattered so far; the names are PEFT's."""

    def __init__(self, seam: LinearSeam, rank: int, scale: float, dropout: float) -> None:
        super().__init__(dropout)
        self.lora_A = parameter((rank, seam.width_in), seam)
        self.lora_B = parameter((seam.width_out, rank), seam)
        self.lora_E = parameter((rank, 1), seam)
        nn.init.normal_(self.lora_A, std=0.02)
        nn.init.normal_(self.lora_B, std=0.02)
        nn.init.zeros_(self.lora_E)
        self.scale = scale
        self.averages: dict[str, tuple[Tensor, Tensor]] = {}  # importance and its uncertainty, smoothed
        self.kept: Tensor | None = None  # ranks that the last pruning left, (rank,) bool

    def product(self, seam: LinearSeam) -> tuple[Tensor, Tensor, float]:
        """Return E A, B and the scale."""
        down, up = seam.low_rank_shapes(len(self.lora_E))
        return (self.lora_A * self.lora_E).view(down), self.lora_B.view(up), self.scale

    def scores(self) -> Tensor:
        """Return the importance of every rank: that of E, and the mean ones of its row of A and column of B.

        Returns:
            (rank,).
        Source: eq. 7 and 9.
        """
        if not self.averages:  # no gradient ever reached this map
            return torch.zeros_like(self.lora_E[:, 0])
        single = {name: mean * doubt for name, (mean, doubt) in self.averages.items()}
        return single["lora_E"].flatten() + (single["lora_A"].mean(1) + single["lora_B"].mean(0))

    @torch.no_grad()
    def prune(self) -> None:
        """Set the singular values to zero that the last pruning took away."""
        if self.kept is not None:
            self.lora_E.masked_fill_(~self.kept[:, None], 0.0)

    def cut(self, rank: int) -> None:
        """Take up room for fewer ranks; what the patch held is lost.

        Args:
            rank: at most the present one, else nothing happens. [count]
        """
        if rank < len(self.lora_E):
            self.lora_A = nn.Parameter(self.lora_A.detach()[:rank].clone())
            self.lora_E = nn.Parameter(self.lora_E.detach()[:rank].clone())
            self.lora_B = nn.Parameter(self.lora_B.detach()[:, :rank].clone())


def _patches(delta: Delta) -> list[AdaLoraPatch]:
    return cast(list[AdaLoraPatch], list(delta.patches.values()))


@torch.no_grad()
def _observe(patches: Iterable[AdaLoraPatch], beta1: float, beta2: float) -> None:
    """Note the importance |w dL/dw| of every number in the present step: its smoothed mean, and its uncertainty.

    Source: eq. 8, 10 and 11.
    """
    now, means, doubts = [], [], []
    for patch in patches:
        for name, weight in patch.named_parameters():
            if weight.grad is not None:
                if name not in patch.averages:
                    patch.averages[name] = torch.zeros_like(weight), torch.zeros_like(weight)
                now.append(weight * weight.grad)
                means.append(patch.averages[name][0])
                doubts.append(patch.averages[name][1])
    if not now:
        return
    torch._foreach_abs_(now)
    torch._foreach_lerp_(means, now, 1 - beta1)
    torch._foreach_sub_(now, means)
    torch._foreach_abs_(now)
    torch._foreach_lerp_(doubts, now, 1 - beta2)


def _keep_best(patches: Iterable[AdaLoraPatch], budget: int) -> None:
    """Prune all but the most important ranks of all maps together."""
    patches = list(patches)
    scores = torch.cat([patch.scores().cpu() for patch in patches])
    kept = torch.ones(len(scores), dtype=torch.bool)
    kept[scores.argsort(stable=True)[: max(0, len(scores) - budget)]] = False
    for patch, rows in zip(patches, kept.split([len(patch.lora_E) for patch in patches]), strict=True):
        patch.kept = rows.to(patch.lora_E.device)
        patch.prune()


def _used(delta: Delta) -> dict[str, Tensor]:
    """Find the ranks that do something, (rank,) bool per map; all of them before the first step, when E = 0."""
    values = dict(zip(delta.patches, _patches(delta), strict=True))
    rows = {path: patch.lora_E.detach().flatten().cpu() != 0 for path, patch in values.items()}
    if not any(found.any() for found in rows.values()):
        return {path: torch.ones_like(found) for path, found in rows.items()}
    return rows
