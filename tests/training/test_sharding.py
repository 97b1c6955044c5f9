"""A base whose blocks processes share out trains as a whole one does, whatever each process runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.training.several import carry_out
from tests.training.test_processes import Found, changed, folder_of, furthest, recipe, together

__all__ = ["recipe"]  # a fixture


@pytest.fixture(scope="module")
def found(recipe: Found, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Found]]:
    """What two processes found that share the base out."""
    folder = tmp_path_factory.mktemp("jobs") / "two"
    sharding = {"shard_base": True}
    jobs: dict[str, Found] = {
        "plain": {"recipe": changed(recipe, "two", training=sharding), "gradients": str(folder / "gradients-")},
    }
    first, second = together(2, folder, list(jobs.values()))
    return {name: [first[turn], second[turn]] for turn, name in enumerate(jobs)}


def test_gradients_equal_those_of_a_whole_base(recipe: Found, found: dict[str, list[Found]], tmp_path: Path) -> None:
    carry_out({"recipe": changed(recipe, "one"), "gradients": str(tmp_path / "one-")}, 0)
    theirs = load_file(tmp_path / "one-0")
    two = Path(found["plain"][0]["gradients"])
    for path in (two / "gradients-0", two / "gradients-1"):
        ours = load_file(path)
        assert len(ours) == len(theirs) == 8
        for step, gradient in theirs.items():
            assert float((ours[step] - gradient).abs().max()) <= 1e-10 * float(gradient.abs().max())
    assert furthest(folder_of(recipe, "two"), folder_of(recipe, "one")) <= 1e-10
