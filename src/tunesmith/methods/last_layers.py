"""Last layers: the top of the model trains whole and the rest stays frozen."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.errors import TargetError
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.methods.base import Method
from tunesmith.models.delta import Delta
from tunesmith.models.seams import Seams
from tunesmith.models.structure import stacks


@register("methods")
class LastLayers(Method):
    """Train copies of the last blocks of every stack and of what stands behind the stacks.

    The frozen blocks below get no gradient and keep no activations.

    Source: Lee et al. 2019, arXiv:1911.03090.
    """

    name: ClassVar[str] = "last-layers"
    paper: ClassVar[str] = "Lee et al. 2019, arXiv:1911.03090"
    placed_by: ClassVar[tuple[str, ...]] = ("count",)

    count: int = setting(2, "Blocks to train, from the top of every stack of blocks.", unit="count", ge=1, le=1000)

    def attach(self, seams: Seams, name: str = "default") -> Delta:
        """Attach trained copies of the top of the model.

        Args:
            seams: of the model.
            name: of the delta.
        Returns:
            The delta.
        Raises:
            TargetError: the model has no stack of blocks, or fewer than `count`.
        """
        model, found = seams.model, stacks(seams.model)
        if not found:
            raise TargetError(
                f"method last-layers: {type(model).__name__} has no stack of like blocks, so nothing is 'last'. Choose "
                "another method, for example full or lora."
            )
        for stack in found:
            if self.count > len(stack):
                raise TargetError(
                    f"method.count={self.count}: '{stack[0].rpartition('.')[0]}' of {type(model).__name__} has only "
                    f"{len(stack)} blocks. Choose 1 to {min(map(len, found))}, or the method full."
                )
        blocks = tuple(f"{block}." for stack in found for block in stack)
        top = tuple(f"{block}." for stack in found for block in stack[-self.count :])
        chosen, behind = [], False
        for path in seams.trainable():
            inside = path.startswith(blocks)
            behind = behind or inside
            # Some families register what embeds the decoder's input behind the encoder's blocks.
            if path.startswith(top) or (behind and not inside and "embed" not in path):
                chosen.append(path)
        return seams.attach(name, parameters=chosen)
