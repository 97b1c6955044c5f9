"""Where a process finds its place among others."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import run_command
from tunesmith.cli.main import version
from tunesmith.core.errors import RecipeError
from tunesmith.core.launch import Place, heed_again, launched


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the second of two processes."""
    for key, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(key, value)


@pytest.mark.usefixtures("started")
def test_a_launcher_gives_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched() == Place(1, 2, 1, 2)
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert launched() == Place(1, 2, 0, 1)
    monkeypatch.delenv("MASTER_PORT")  # as a queue of a cluster sets some of them for work of one process
    assert launched() == Place()


@pytest.mark.usefixtures("started")
@pytest.mark.parametrize("key", ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"])
def test_a_place_that_is_no_number(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv(key, "two")
    with pytest.raises(RecipeError, match=f"the environment's {key} is 'two', .* a whole number"):
        launched()
    try:
        said = run_command("doctor")
    finally:
        heed_again()
    assert said.returncode == 2 and said.stderr.startswith(f"error: the environment's {key} is 'two'")


@pytest.mark.usefixtures("started")
def test_other_commands_than_train_run_in_one_process() -> None:
    context: Any = SimpleNamespace(invoked_subcommand="doctor")
    with pytest.raises(RecipeError, match="2 processes were started for `tunesmith doctor`: only train"):
        version(context)
    context.invoked_subcommand = "train"
    version(context)
