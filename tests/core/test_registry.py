"""A component is one new file, also from outside: nothing else is touched."""

from pathlib import Path

import pytest

from tunesmith.core import registry
from tunesmith.core.errors import RecipeError
from tunesmith.core.registry import components, find
from tunesmith.recipe.describing import json_schema
from tunesmith.recipe.loading import load_recipe
from tunesmith.testing import check_method, tiny_models

PAGE = Path(__file__).parents[2] / "docs" / "decisions" / "0006-new-method.md"
METHOD = PAGE.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]


def test_a_method_from_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere.py").write_text(METHOD)
    info = tmp_path / "elsewhere-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tunesmith.methods]\nscale = elsewhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry._registered, "methods", dict(components("methods")))  # afterwards all is as before
    registry._discover.cache_clear()  # as in a process that starts now
    scale = components("methods")["scale"]
    for tiny in tiny_models().values():
        check_method(scale, tiny)
    assert load_recipe({"data": {"train": "a.csv"}, "method": "scale"}).method.name == "scale"
    assert "scale" in str(json_schema())


def test_unknown_names_offer_the_nearest() -> None:
    with pytest.raises(RecipeError, match="unknown metric 'acuracy'; did you mean 'accuracy'"):
        find("metrics", "acuracy")
    assert list(components("methods")) == sorted(components("methods"))
