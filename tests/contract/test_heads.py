import pytest

from tunesmith.core.registry import components
from tunesmith.testing import check_head


@pytest.mark.parametrize("name", components("heads"))
def test_head_keeps_its_promises(name: str) -> None:
    check_head(components("heads")[name])
