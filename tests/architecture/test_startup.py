"""The command line and the quiet folders start without torch, and a run without what its first step does not need."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

QUIET = ("torch", "transformers", "sklearn", "pyarrow")
LATE = ("pandas", "sklearn", "matplotlib", "datasets", "peft", "trl", "pyarrow.parquet")  # before the first step


def loaded_by(code: str, heavy: tuple[str, ...] = QUIET) -> set[str]:
    script = f"import sys\n{code}\nprint(' '.join(m for m in {heavy} if m in sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(result.stdout.splitlines()[-1].split())


def trained(recipe: dict[str, object], folder: Path, before: str = "") -> tuple[set[str], set[str], str]:
    """Train in a process of its own: what is loaded before the first step and at the end, and the collector's state."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    code = f"""
{before}
import gc
import tunesmith
from tunesmith.training.loop import Loop
step, loaded = Loop.step, []
def noting(own, work):
    if not loaded:
        loaded.append([module for module in {LATE} if module in sys.modules])
    return step(own, work)
Loop.step = noting
tunesmith.train({str(folder / "recipe.yaml")!r})
open({str(folder / "before")!r}, "w").write(" ".join(loaded[0]))
collector = gc.isenabled(), gc.get_freeze_count() > 100_000
open({str(folder / "collector")!r}, "w").write(repr(collector))
"""
    at_the_end = loaded_by(code, LATE)
    return set((folder / "before").read_text().split()), at_the_end, (folder / "collector").read_text()


def test_a_run_in_a_process_of_the_user(recipe: dict[str, object], tmp_path: Path) -> None:
    """It loads only what it needs, and the first step less; what is there may be the user's, and garbage later."""
    first, at_the_end, collector = trained(recipe | {"evaluation": {"baselines": False}}, tmp_path)
    assert first == set()
    assert at_the_end == {"matplotlib", "pyarrow.parquet"}, "the report and the table"
    assert collector == "(True, False)"


def test_a_run_with_baselines_in_our_own_process(recipe: dict[str, object], tmp_path: Path) -> None:
    """They alone load scikit-learn; imported packages are left out of collections."""
    ours = "from tunesmith.core.importing import take_the_process\ntake_the_process()"
    first, _, collector = trained(recipe | {"evaluation": {"baselines": ["linear-probe"]}}, tmp_path, ours)
    assert "sklearn" in first
    assert collector == "(True, True)"


@pytest.mark.parametrize(
    "module", ["tunesmith", "tunesmith.core.registry", "tunesmith.recipe.loading", "tunesmith.prompts.template"]
)
def test_quiet_folders_do_not_load_torch(module: str) -> None:
    assert not loaded_by(f"import {module}")


def test_help_loads_neither_torch_nor_transformers_nor_numpy() -> None:
    code = "from tunesmith.cli.main import app\ntry:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
    assert not loaded_by(code, (*QUIET, "numpy"))
