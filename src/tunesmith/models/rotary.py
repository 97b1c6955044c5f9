"""The two orders in which the rows of q and k are kept for rotary positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tunesmith.core.errors import CompatibilityError


@dataclass(frozen=True)
class HeadRows:
    """How the rows of q and k are cut into heads.

    transformers turns a head's first half against its second half; torchtune, as Meta, turns neighbours. So row
    (half, place) of a head in transformers is row (place, half) there.

    Args:
        counts: heads of q and of k, by the end of the map's name.
        width: of one head.
    """

    counts: Mapping[str, int]
    width: int

    @classmethod
    def of(cls, config: Any) -> HeadRows:
        """Read it off a model's config.

        Args:
            config: of a Llama-like decoder.
        Returns:
            The rows.
        """
        heads = int(config.num_attention_heads)
        width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
        return cls({"q_proj": heads, "k_proj": int(getattr(config, "num_key_value_heads", None) or heads)}, width)

    def to_neighbours(self, path: str, rows: Tensor) -> Tensor:
        """Reorder what makes q or k from halves to neighbours.

        Args:
            path: of the map; any but q and k stays.
            rows: (out, any).
        Returns:
            (out, any).
        Raises:
            CompatibilityError: there are other rows than the heads have.
        """
        return self._turned(path, rows, (2, self.width // 2))

    def to_halves(self, path: str, rows: Tensor) -> Tensor:
        """Reorder what makes q or k from neighbours to halves.

        Args:
            path: of the map; any but q and k stays.
            rows: (out, any).
        Returns:
            (out, any).
        Raises:
            CompatibilityError: there are other rows than the heads have.
        """
        return self._turned(path, rows, (self.width // 2, 2))

    def _turned(self, path: str, rows: Tensor, halves: tuple[int, int]) -> Tensor:
        count = self.counts.get(path.rpartition(".")[2])
        if count is None:
            return rows
        if len(rows) != count * self.width:
            raise CompatibilityError(
                f"'{path}' has {len(rows)} outputs, the base model's config says {count} heads of {self.width}."
            )
        return rows.reshape(count, *halves, -1).transpose(1, 2).reshape(rows.shape)
