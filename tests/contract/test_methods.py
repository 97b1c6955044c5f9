import pytest

from tunesmith.core.registry import components
from tunesmith.testing import check_method, tiny_models


@pytest.mark.parametrize("family", tiny_models())
@pytest.mark.parametrize("name", components("methods"))
def test_method_keeps_its_promises(name: str, family: str) -> None:
    check_method(components("methods")[name], tiny_models()[family])
