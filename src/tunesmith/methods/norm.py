"""Norm tuning: train the scales and shifts of the norms and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from tunesmith.core.errors import CheckpointError, TargetError
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.methods.base import PREFIX, LayerMethod, PeftFolder
from tunesmith.models.delta import Delta
from tunesmith.models.seams import Seams, matches

_BELOW = "ln_tuning_layers"  # what PEFT puts between a module's name and its parameters' names
_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)


@register("methods")
class Norm(LayerMethod):
    """Train a copy of every parameter of the model's norms.

    Source: Qi et al. 2022, arXiv:2211.08682.
    """

    name: ClassVar[str] = "norm"
    paper: ClassVar[str] = "Qi et al. 2022, arXiv:2211.08682"
    peft_type: ClassVar[str | None] = "LN_TUNING"

    layers: str | tuple[str, ...] = setting(
        "auto", "Modules to train: auto (every norm), names, ends of names, patterns with *, or re:REGEX."
    )

    def modules(self, seams: Seams) -> list[str]:
        """Find the modules to train.

        Args:
            seams: of the model.
        Returns:
            Dotted names in the model's order.
        Raises:
            TargetError: the model has no norm, or an entry of `layers` matches no module with parameters.
        """
        model = seams.model
        if self.layers == "auto":
            found = [path for path, module in model.named_modules() if _is_norm(module)]
            if not found:
                raise TargetError(
                    f"method norm: {type(model).__name__} has no norm with parameters, so nothing would train. "
                    "Choose another method, for example lora, or name modules in method.layers."
                )
            return found
        owners = [path for path, module in model.named_modules() if any(True for _ in module.parameters()) and path]
        wanted = [self.layers] if isinstance(self.layers, str) else self.layers
        for entry in wanted:
            if not any(matches(entry, path) for path in owners):
                norms = sorted({path.rsplit(".", 1)[-1] for path, module in model.named_modules() if _is_norm(module)})
                raise TargetError(
                    f"layers: '{entry}' matches no module with parameters of {type(model).__name__}. Its norms end in: "
                    f"{', '.join(norms) or 'none'}; 'auto' takes them all. Nothing was trained."
                )
        return [path for path in owners if any(matches(entry, path) for entry in wanted)]

    def chosen(self, seams: Seams) -> list[str]:
        """Find the modules to train, which here need be no linear maps."""
        return self.modules(seams)

    def warnings(self, seams: Seams) -> list[str]:
        """Say which of the chosen modules are no norms.

        Args:
            seams: of the model.
        Returns:
            At most one sentence.
        """
        modules = dict(seams.model.named_modules())
        other = [path for path in self.modules(seams) if not any(_is_norm(part) for part in modules[path].modules())]
        if not other:
            return []
        return [
            f"method.layers: {len(other)} of the modules are no norms, for example '{other[0]}'; all of their weights "
            "train."
        ]

    def attach(self, seams: Seams, name: str = "default") -> Delta:
        """Attach trained copies of the norms' parameters.

        Args:
            seams: of the model.
            name: of the delta.
        Returns:
            The delta.
        Raises:
            TargetError: nothing to train; see `modules`.
        """
        inside = tuple(f"{path}." for path in self.modules(seams))
        whole = self.whole(seams)
        norms = [path for path, _ in seams.model.named_parameters() if path.startswith(inside) and path not in whole]
        return seams.attach(name, parameters=[*norms, *whole], alone=whole)

    def tensors(self, delta: Delta) -> dict[str, Tensor]:
        """Name the norms' tensors as PEFT does: below the module that it wraps around a norm.

        Args:
            delta: of norms and of `modules_to_save`, which keep their names.
        Returns:
            PEFT's name to tensor.
        """
        whole, found = self.whole(delta.seams), {}
        for path, tensor in delta.state().items():
            owner, _, leaf = path.rpartition(".")
            found[PREFIX + (path if path in whole else f"{owner}.{_BELOW}.{leaf}")] = tensor
            if path not in whole:  # running statistics, the base's own, which PEFT expects beside
                for name, buffer in delta.seams.model.get_submodule(owner).named_buffers(recurse=False):
                    if buffer.is_floating_point():
                        found[f"{PREFIX}{owner}.{_BELOW}.{name}"] = buffer.detach().cpu().clone()
        return found

    def load(self, delta: Delta, tensors: Mapping[str, Tensor], where: str) -> None:
        """Fill the copies from tensors under PEFT's names.

        Args:
            delta: fresh.
            tensors: of a folder, ours or PEFT's.
            where: the folder's weights file.
        Raises:
            CheckpointError: they are of other modules.
        """
        plain = {name.removeprefix(PREFIX).replace(f".{_BELOW}.", "."): tensor for name, tensor in tensors.items()}
        buffers = dict(delta.seams.model.named_buffers())
        for name in [name for name in plain if name in buffers]:
            saved, own = plain.pop(name), buffers[name]
            if saved.shape != own.shape or not torch.allclose(saved.to(own), own, rtol=1e-5):
                raise CheckpointError(
                    f"{where}: '{name}' are running statistics that drifted in training, and here a delta leaves those "
                    "of its base as they are. Train with the model's batch norms in eval mode."
                )
        delta.load(plain, where)

    def to_peft(self, delta: Delta) -> dict[str, Any]:
        """Word the settings as a PEFT LNTuningConfig.

        Args:
            delta: its norms become the target modules.
        Returns:
            Two keys of adapter_config.json.
        """
        whole = self.whole(delta.seams)
        owners = {path.rpartition(".")[0] for path in delta.copies if path not in whole}
        return {"target_modules": sorted(owners), "modules_to_save": list(self.modules_to_save) or None}

    @classmethod
    def from_peft(cls, folder: PeftFolder) -> Self:
        """Read a PEFT LNTuningConfig.

        Args:
            folder: as read.
        Returns:
            The method; its layers by full name, as the weights have them.
        Raises:
            CheckpointError: the weights hold no norm.
        """
        found = dict.fromkeys(
            name.removeprefix(PREFIX).partition(f".{_BELOW}.")[0] for name in folder.tensors if f".{_BELOW}." in name
        )
        if not found:
            raise CheckpointError(f"{folder.where}: the weights hold no tensor of LN_TUNING.")
        return cls(layers=tuple(found), modules_to_save=folder.whole())


def _is_norm(module: nn.Module) -> bool:
    """Whether a module normalises and has something to train; families name their own classes ...Norm."""
    own = list(module.parameters(recurse=False))
    named = "Norm" in type(module).__name__ and all(tensor.dim() == 1 for tensor in own)
    return bool(own) and (isinstance(module, _NORMS) or named)
