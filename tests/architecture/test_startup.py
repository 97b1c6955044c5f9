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


def trained(recipe: dict[str, object], folder: Path) -> tuple[set[str], set[str]]:
    """Train in a process of its own, and return what is loaded before the first step and at the end."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    code = f"""
import tunesmith
from tunesmith.training.loop import Loop
step, before = Loop.step, []
def noting(own, work):
    if not before:
        before.append([module for module in {LATE} if module in sys.modules])
    return step(own, work)
Loop.step = noting
tunesmith.train({str(folder / "recipe.yaml")!r})
open({str(folder / "before")!r}, "w").write(" ".join(before[0]))
"""
    at_the_end = loaded_by(code, LATE)
    return set((folder / "before").read_text().split()), at_the_end


def test_a_run_loads_only_what_it_needs_and_the_first_step_less(recipe: dict[str, object], tmp_path: Path) -> None:
    first, at_the_end = trained(recipe | {"evaluation": {"baselines": False}}, tmp_path)
    assert first == set()
    assert at_the_end == {"matplotlib", "pyarrow.parquet"}, "the report and the table"


def test_baselines_load_scikit_learn_only_where_they_are_wanted(recipe: dict[str, object], tmp_path: Path) -> None:
    first, _ = trained(recipe | {"evaluation": {"baselines": ["linear-probe"]}}, tmp_path)
    assert "sklearn" in first


@pytest.mark.parametrize("alone", [True, False], ids=["the command line", "a library"])
def test_imported_packages_are_left_out_of_collections_in_our_own_process(alone: bool) -> None:
    """In a user's process what is there at that moment may be the user's, and garbage later."""
    taken = "from tunesmith.core.importing import take_the_process\ntake_the_process()\n" if alone else ""
    code = f"import gc\n{taken}import tunesmith.models\nprint(gc.isenabled(), gc.get_freeze_count() > 100_000)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", str(alone)]


@pytest.mark.parametrize(
    "module", ["tunesmith", "tunesmith.core.registry", "tunesmith.recipe.loading", "tunesmith.prompts.template"]
)
def test_quiet_folders_do_not_load_torch(module: str) -> None:
    assert not loaded_by(f"import {module}")


def test_help_loads_neither_torch_nor_transformers_nor_numpy() -> None:
    code = "from tunesmith.cli.main import app\ntry:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
    assert not loaded_by(code, (*QUIET, "numpy"))
