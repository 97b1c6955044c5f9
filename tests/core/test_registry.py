"""A component is one new file, also from outside: nothing else is touched."""

import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.core.errors import RecipeError
from tunesmith.core.registry import components, find

METHOD = '''
"""Half LoRA."""
from typing import ClassVar
from tunesmith.core.registry import register
from tunesmith.core.settings import setting
from tunesmith.methods.base import Method
from tunesmith.methods.lora import LoraPatch


@register("methods")
class Outside(Method):
    """LoRA of rank one, from another package."""

    name: ClassVar[str] = "outside"
    layers: str = setting("all-linear", "Which linear maps.")

    def attach(self, seams, name="default"):
        """Attach."""
        build = lambda seam: LoraPatch(seam, 1, 1.0, 0.0)
        return seams.attach(name, {path: build for path in seams.select(self.layers)})
'''
CHECK = """
from tunesmith.core.registry import components
from tunesmith.recipe.loading import load_recipe, json_schema
from tunesmith.testing import check_method, tiny_models
outside = components("methods")["outside"]
for family in ("encoder", "decoder", "vision"):
    check_method(outside, tiny_models()[family])
assert load_recipe({"data": {"train": "a.csv"}, "method": "outside"}).method.name == "outside"
assert "outside" in str(json_schema())
print("passed")
"""


def test_a_method_from_another_package(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.py").write_text(METHOD)
    info = tmp_path / "elsewhere-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tunesmith.methods]\noutside = elsewhere\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{CHECK}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout.endswith("passed\n"), result.stderr


def test_unknown_names_offer_the_nearest() -> None:
    with pytest.raises(RecipeError, match="unknown metric 'acuracy'; did you mean 'accuracy'"):
        find("metrics", "acuracy")
    assert list(components("methods")) == sorted(components("methods"))
