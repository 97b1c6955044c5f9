import pytest

from tunesmith.core.registry import components
from tunesmith.testing import check_loss, check_optimizer, check_regularizer, check_schedule


@pytest.mark.parametrize("name", components("optimizers"))
def test_optimizer_keeps_its_promises(name: str) -> None:
    check_optimizer(components("optimizers")[name])


@pytest.mark.parametrize("name", components("schedules"))
def test_schedule_keeps_its_promises(name: str) -> None:
    check_schedule(components("schedules")[name])


@pytest.mark.parametrize("name", components("losses"))
def test_loss_keeps_its_promises(name: str) -> None:
    check_loss(components("losses")[name])


@pytest.mark.parametrize("name", components("regularizers"))
def test_regularizer_keeps_its_promises(name: str) -> None:
    check_regularizer(components("regularizers")[name])
