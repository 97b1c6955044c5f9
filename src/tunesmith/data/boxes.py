"""Boxes around things in images."""

from __future__ import annotations

import math
from typing import Any

from tunesmith.core.errors import DataError


def box_of(value: Any, where: str) -> list[float]:
    """Check a box.

    Args:
        value: left, top, width and height. [pixels]
        where: it stands.
    Returns:
        The same as numbers.
    Raises:
        DataError: not four numbers, or no area.
    """
    numbers = value if isinstance(value, list) and len(value) == 4 else []
    if not numbers or not all(isinstance(one, int | float) and math.isfinite(one) for one in numbers):
        raise DataError(f"{where}: a box is left, top, width and height in pixels, not {str(value)[:60]}.")
    if numbers[2] <= 0 or numbers[3] <= 0:
        raise DataError(f"{where}: a box of {numbers[2]:g} x {numbers[3]:g} pixels holds nothing. Correct it, or take "
                        "it out.")  # fmt: skip
    return [float(one) for one in numbers]
