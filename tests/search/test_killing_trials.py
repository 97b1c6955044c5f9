"""A trial that ends the process whenever it trains, as one that needs more memory than there is."""

from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tunesmith.core.files import read_json
from tunesmith.search.database import Database
from tunesmith.search.passes import Passes

pytest.importorskip("optuna", reason="the extra 'search' is not installed")


class Killed(BaseException):
    """Stands for SIGKILL, after which nothing is tidied."""


def test_a_trial_that_ends_every_search_has_failed_and_takes_none_with_it(
    space: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carry_out, give_back, passes, dead = Passes.carry_out, Database.give_back, list[list[int]](), set[int]()

    def killing(self: Passes, wanted: Any, listen: Any) -> Any:
        passes.append(sorted(wanted))
        if 1 in wanted:
            dead.add(1)
            raise Killed
        return carry_out(self, wanted, listen)

    def giving(self: Database, trials: Any) -> None:
        if not dead:
            give_back(self, trials)
        dead.clear()

    monkeypatch.setattr(Passes, "carry_out", killing)
    monkeypatch.setattr(Database, "give_back", giving)
    recipe, ends = {**space, "output": str(tmp_path / "s")}, 0
    settings: dict[str, Any] = {"trials": 4, "strategy": "random", "width": 4}
    while True:
        try:
            found = tunesmith.search_settings(recipe, resume=ends > 0, **settings)
            break
        except Killed:
            ends += 1
            assert ends < 7
    assert ends == 6 and passes[:4] == [[0, 1, 2, 3]] * 4
    assert passes[4:] == [[0], [1], [1], [2], [3]]  # one by one, once four searches ended with them
    states = [one["outcome"]["state"] for one in read_json(tmp_path / "s" / "trials.json", list)]
    assert states == ["complete", "failed", "complete", "complete"]
    assert "6 searches ended with it" in (tmp_path / "s" / "study.md").read_text()
    assert found["trials"]["failed"] == 1
