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


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str) -> None:
    """Lay a package with one method where Python finds it, as in a process that starts now."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[tunesmith.methods]\nscale = {name}\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setitem(registry._registered, "methods", dict(components("methods")))  # afterwards all is as before
    registry._discover.cache_clear()


def test_a_method_from_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "elsewhere", METHOD)
    scale = components("methods")["scale"]
    for tiny in tiny_models().values():
        check_method(scale, tiny)
    assert load_recipe({"data": {"train": "a.csv"}, "method": "scale"}).method.name == "scale"
    assert "scale" in str(json_schema())


def test_unknown_names_offer_the_nearest() -> None:
    with pytest.raises(RecipeError, match="unknown metric 'acuracy'; did you mean 'accuracy'"):
        find("metrics", "acuracy")
    assert list(components("methods")) == sorted(components("methods"))


def test_a_name_that_is_taken_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lora = find("methods", "lora")
    install(tmp_path, monkeypatch, "rival", METHOD.replace('"scale"', '"lora"'))
    with pytest.raises(RecipeError, match=r"methods: rival\..* \(.*rival\.py\) registers the name 'lora', which tune"):
        components("methods")
    assert registry._registered["methods"]["lora"] is lora


def test_a_module_that_is_loaded_again_replaces_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._registered, "methods", {})

    def made(module: str) -> type:
        return type("Twice", (), {"name": "twice", "__module__": module, "__qualname__": "Twice"})

    first, again = made("one"), made("one")
    for component in (first, again):
        registry.register("methods")(component)
    assert registry._registered["methods"] == {"twice": again}
    with pytest.raises(RecipeError, match=r"other\.Twice registers the name 'twice', which one\.Twice has"):
        registry.register("methods")(made("other"))
