"""The command line and the quiet folders start without torch, and a run without what its first step does not need."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

QUIET = ("torch", "transformers", "sklearn", "pyarrow")
LATE = ("pandas", "sklearn", "matplotlib", "datasets", "peft", "trl", "pyarrow.parquet")  # before the first step


def loaded_by(code: str, heavy: tuple[str, ...] = QUIET) -> set[str]:
    script = f"import sys\n{code}\nprint(' '.join(m for m in {heavy} if m in sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(result.stdout.splitlines()[-1].split())


def trained(recipe: dict[str, object], folder: Path, until: str) -> set[str]:
    """Train in a process of its own up to a point, and return what is loaded there."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    code = f"""
import tunesmith
from tunesmith.training.loop import Loop
def stop(own, work):
    raise EOFError
if {until!r} == "the first step":
    Loop.step = stop
try:
    tunesmith.train({str(folder / "recipe.yaml")!r})
except EOFError:
    pass
"""
    return loaded_by(code, LATE)


def test_the_first_step_comes_without_what_it_does_not_need(recipe: dict[str, object], tmp_path: Path) -> None:
    plain = recipe | {"evaluation": {"baselines": False}}
    assert trained(plain, tmp_path, "the first step") == set()


def test_a_run_never_loads_what_only_others_need(recipe: dict[str, object], tmp_path: Path) -> None:
    plain = recipe | {"evaluation": {"baselines": False}}
    assert trained(plain, tmp_path, "the end") == {"matplotlib", "pyarrow.parquet"}, "the report and the table"


def test_baselines_load_scikit_learn_only_where_they_are_wanted(recipe: dict[str, object], tmp_path: Path) -> None:
    assert "sklearn" in trained(recipe | {"evaluation": {"baselines": ["linear-probe"]}}, tmp_path, "the first step")


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


def test_help_is_quick() -> None:
    """The best of five, since machines are noisy; measured where it was written: 0.17 s."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "tunesmith", "--help"], capture_output=True, check=True)
        times.append(time.perf_counter() - began)
    assert min(times) < 0.3
