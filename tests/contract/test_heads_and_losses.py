import pytest

from tunesmith.core.registry import components
from tunesmith.testing import check_head, check_loss


@pytest.mark.parametrize("name", components("heads"))
def test_head_keeps_its_promises(name: str) -> None:
    check_head(components("heads")[name])


@pytest.mark.parametrize("name", components("losses"))
def test_loss_keeps_its_promises(name: str) -> None:
    check_loss(components("losses")[name])
