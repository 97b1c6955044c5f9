"""What settings take, and what they refuse."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import Field, ValidationError

from tunesmith.core.settings import Settings, setting


class Asked(Settings):
    """Numbers in every place that one may stand in, and what may be true or false."""

    one: float | None = setting(None, "A number.")
    several: tuple[float, ...] = setting((), "Numbers.")
    some: list[int] | None = setting(None, "Numbers, or none.")
    named: dict[str, Annotated[float, Field(gt=0)]] = setting({}, "Numbers by name.")
    switches: tuple[bool, ...] = setting((), "Truth values.")
    free: dict[str, Any] = setting({}, "Anything.")


@pytest.mark.parametrize(
    "given", [{"one": True}, {"several": (1.0, True)}, {"several": True}, {"some": [False]}, {"named": {"a": True}}]
)
def test_true_is_no_number(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="a number is wanted, not true or false"):
        Asked(**given)


def test_true_is_true() -> None:
    found = Asked(several=(1, 2.5), named={"a": 1}, switches=(True, False), free={"a": True, "b": [False]})
    assert found.several == (1.0, 2.5) and found.named == {"a": 1.0}
    assert found.switches == (True, False) and found.free == {"a": True, "b": [False]}
