import pytest

from tunesmith.core.registry import components
from tunesmith.testing import check_metric


@pytest.mark.parametrize("name", components("metrics"))
def test_metric_keeps_its_promises(name: str) -> None:
    check_metric(components("metrics")[name])
