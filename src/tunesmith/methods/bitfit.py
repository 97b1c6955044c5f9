"""BitFit: train the bias terms and nothing else."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.errors import TargetError
from tunesmith.core.registry import register
from tunesmith.methods.base import Method
from tunesmith.models.delta import Delta
from tunesmith.models.seams import Seams


@register("methods")
class BitFit(Method):
    """Train a copy of every bias of the model, those of the norms included.

    Source: Ben Zaken et al. 2021, arXiv:2106.10199.
    """

    name: ClassVar[str] = "bitfit"
    needs: ClassVar[frozenset[str]] = frozenset({"bias"})
    paper: ClassVar[str] = "Ben Zaken et al. 2021, arXiv:2106.10199"

    def attach(self, seams: Seams, name: str = "default") -> Delta:
        """Attach trained copies of the biases.

        Args:
            seams: of the model.
            name: of the delta.
        Returns:
            The delta.
        Raises:
            TargetError: the model has no bias.
        """
        biases = seams.biases()
        if not biases:
            raise TargetError(
                f"method bitfit: {type(seams.model).__name__} has no bias terms, so nothing would train. "
                "Choose another method, for example lora."
            )
        return seams.attach(name, parameters=biases)
