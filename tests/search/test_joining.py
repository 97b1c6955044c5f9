"""Several processes on one study: each trial is done once, those of a dead one are taken up, strangers are refused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tunesmith.core.errors import CheckpointError, RecipeError
from tunesmith.core.files import read_json
from tunesmith.search.database import Database
from tunesmith.search.passes import Passes
from tunesmith.search.presence import PROCESSES, Presence
from tunesmith.search.trials import StudyTrial

pytest.importorskip("optuna", reason="the extra 'search' is not installed")

SETTINGS: dict[str, Any] = {"trials": 6, "strategy": "random", "width": 2}

# A process that searches. It writes down what it trains, and waits in a pass until so many files are there as it was
# told for that pass.
PROGRAM = """
import json, sys, time
from pathlib import Path
import tunesmith
from tunesmith.search.passes import Passes

place, name, join, gates = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "join", json.loads(sys.argv[4])
carry_out, passes = Passes.carry_out, []

def gated(self, wanted, listen):
    passes.append(sorted(wanted))
    (place / f"{name}.part").write_text(json.dumps(passes))
    (place / f"{name}.part").rename(place / f"{name}.json")
    pattern, count = gates[len(passes) - 1] if len(passes) <= len(gates) else ("*", 0)
    while len(list(place.glob(pattern))) < count:
        time.sleep(0.02)
    return carry_out(self, wanted, listen)

Passes.carry_out = gated
recipe = json.loads((place / "recipe.json").read_text())
found = tunesmith.search_settings(recipe, trials=6, strategy="random", width=2, join=join)
(place / f"{name}-found.json").write_text(json.dumps(found))
"""
BOTH_THERE = (f"study/{PROCESSES}/*", 2)
NEVER = ("no such file", 1)


def started(place: Path, name: str, how: str, *gates: tuple[str, int]) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", PROGRAM, str(place), name, how, json.dumps(gates)]
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True)


def until(place: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    """Wait until a file is there; a process that ends before is an error of the test."""
    while not list(place.glob(pattern)):
        try:
            code = process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        assert list(place.glob(pattern)), f"the process ended with {code}: {process.communicate()[1]}"


def told(folder: Path) -> list[Any]:
    """What must not depend on time and on who trained."""
    trials = [StudyTrial.of(one) for one in read_json(folder / "trials.json", list)]
    return [(one.number, one.overrides, one.outcome.state, one.outcome.value) for one in trials]


@pytest.fixture(scope="module")
def alone(space: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The same study by one process."""
    folder = tmp_path_factory.mktemp("alone") / "study"
    tunesmith.search_settings({**space, "output": str(folder)}, **SETTINGS)
    assert not (folder / PROCESSES).exists()
    return told(folder)


def test_two_processes_do_the_trials_of_one_and_both_give_its_result(
    space: dict[str, Any], alone: list[Any], tmp_path: Path
) -> None:
    (tmp_path / "recipe.json").write_text(json.dumps({**space, "output": str(tmp_path / "study")}))
    first = started(tmp_path, "first", "begin", BOTH_THERE, ("second.json", 1))
    until(tmp_path, "first.json", first)
    second = started(tmp_path, "second", "join")
    assert [one.wait() for one in (first, second)] == [0, 0], first.communicate()[1] + second.communicate()[1]
    passes = [number for name in ("first", "second") for one in read_json(tmp_path / f"{name}.json") for number in one]
    assert sorted(passes) == list(range(6)) and read_json(tmp_path / "first.json")[0] == [0, 1]
    assert len(read_json(tmp_path / "second.json")[0]) == 2
    result = read_json(tmp_path / "study" / "result.json")
    assert read_json(tmp_path / "first-found.json") == read_json(tmp_path / "second-found.json") == result
    assert told(tmp_path / "study") == alone and result["trials"]["all"] == 6 and result["batches"] == 2
    assert (tmp_path / "study" / "report.html").is_file() and tunesmith.Run(tmp_path / "study" / "best").metrics
    assert not (tmp_path / "study" / PROCESSES).exists()


def test_what_a_killed_process_had_taken_is_taken_up(space: dict[str, Any], alone: list[Any], tmp_path: Path) -> None:
    """The process that began the study dies while it trains its share of the second batch; the other one ends it."""
    (tmp_path / "recipe.json").write_text(json.dumps({**space, "output": str(tmp_path / "study")}))
    first = started(tmp_path, "first", "begin", BOTH_THERE, NEVER)
    until(tmp_path, "first.json", first)
    second = started(tmp_path, "second", "join")
    while len(read_json(tmp_path / "first.json")) < 2:
        assert first.poll() is None and second.poll() is None, second.communicate()[1]
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    said = second.communicate()[1]
    assert second.returncode == 0, said
    lost = read_json(tmp_path / "first.json")[1]
    assert len(lost) == 2 and all([number] in read_json(tmp_path / "second.json") for number in lost)
    assert f"a process ended that searched here too; its trial {lost[0]} is taken up" in said
    assert told(tmp_path / "study") == alone
    assert read_json(tmp_path / "study" / "result.json")["trials"]["complete"] == 6


def within_a_pass(patch: pytest.MonkeyPatch, do: Any) -> None:
    """Do something while the first pass of a search is under way."""
    carry_out, done = Passes.carry_out, list[None]()

    def doing(self: Passes, *given: Any) -> Any:
        if not done:
            done.append(None)
            do()
        return carry_out(self, *given)

    patch.setattr(Passes, "carry_out", doing)


def test_who_may_not_join(space: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = tmp_path / "train.csv"
    train.write_text(Path(space["data"]["train"]).read_text())
    recipe = {**space, "data": {**space["data"], "train": str(train)}, "output": str(tmp_path / "study")}

    def refused(said: str, *words: str, join: bool = True, **settings: Any) -> None:
        with pytest.raises(CheckpointError, match=said):
            tunesmith.search_settings(recipe, words, **{**SETTINGS, **settings}, join=join)

    def strangers() -> None:
        refused("another process is searching in .*study. Take trials of its search with --join", join=False)
        refused("study.db is the study of another search: width is 3, there it was 2", width=3)
        refused("study.db is the study of another search: recipe is '", "training.epochs=2")
        refused("the search in .*study that you join: budget.evaluations is 9.0, there it was 6.0", trials=9)
        refused("that you join: search.rules is .*epochs <= 3.*, there it was", rules="epochs <= 3")
        text = train.read_text()
        train.write_text(text.replace("hello", "hallo"))
        refused("study.db is the study of other data: train rows is 'sha256:.*, there it was 'sha256:")
        train.write_text(text)

    refused(r"study holds no study to join \(study.db is missing\). Leave --join out")
    assert not (tmp_path / "study").exists()
    within_a_pass(monkeypatch, strangers)
    found = tunesmith.search_settings(recipe, **SETTINGS)
    assert found["trials"]["complete"] == 6 and found["batches"] == 3  # nobody joined
    refused("has ended: 6 trials were tried. It goes on with --resume and a larger budget")
    with pytest.raises(RecipeError, match="resume, join: a study that was stopped is resumed"):
        tunesmith.search_settings(recipe, **SETTINGS, resume=True, join=True)


def test_a_study_that_was_stopped_is_not_joined(
    space: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = {**space, "output": str(tmp_path / "study")}

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Passes, "carry_out", stopped)
        tunesmith.search_settings(recipe, **SETTINGS)
    assert (
        f"the trials so far are in {tmp_path / 'study'}; go on with the same words and --resume"
        in capsys.readouterr().err
    )
    with pytest.raises(CheckpointError, match="no process is searching in .*study. Go on with its study with --resume"):
        tunesmith.search_settings(recipe, **SETTINGS, join=True)


@pytest.mark.parametrize("deaths", [0, 1])
def test_a_trial_that_ends_its_process_twice_has_failed(
    space: dict[str, Any], tmp_path: Path, deaths: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One trial of the batch stands as taken by a process that is gone."""
    announce = Database.announce

    def and_lost(self: Database, *given: Any) -> None:
        announce(self, *given)
        for one in self.announced(0)[1:]:
            states = type(self._study.get_trials()[0].state)
            self._storage.set_trial_user_attr(one.place, "owner", "gone")
            self._storage.set_trial_user_attr(one.place, "deaths", deaths)
            self._storage.set_trial_state_values(one.place, states.RUNNING)

    monkeypatch.setattr(Database, "announce", and_lost)
    found = tunesmith.search_settings({**space, "output": str(tmp_path / "s")}, **{**SETTINGS, "trials": 2})
    lost = StudyTrial.of(read_json(tmp_path / "s" / "trials.json")[1]).outcome
    assert found["trials"]["complete"] == 2 - deaths and lost.state == ("failed" if deaths else "complete")
    assert ("its process ended twice" in lost.reason) == bool(deaths)


@pytest.mark.parametrize("words", [{}, {"resume": True}, {"join": True}])
@pytest.mark.parametrize("place", [".", "study.db", PROCESSES])
def test_what_may_not_be_written_is_named(
    space: dict[str, Any], tmp_path: Path, place: str, words: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's answer is put in its place: whoever runs the tests may be allowed everything."""
    (tmp_path / "study.db").touch()
    (tmp_path / PROCESSES).mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / place and access(path, mode))
    with pytest.raises(CheckpointError, match=f"{tmp_path / place} cannot be written: its permissions, or those of"):
        tunesmith.search_settings({**space, "output": str(tmp_path)}, **SETTINGS, **words)


def test_a_file_in_place_of_the_folder_of_processes_is_not_ours(space: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / PROCESSES).touch()
    with pytest.raises(CheckpointError, match="the output folder .* exists"):
        tunesmith.search_settings({**space, "output": str(tmp_path)}, **SETTINGS)
    (tmp_path / "study.db").touch()
    for word in ("resume", "join"):
        with pytest.raises(CheckpointError, match=f"{PROCESSES} is a file, where searches keep a folder"):
            tunesmith.search_settings({**space, "output": str(tmp_path)}, **SETTINGS, **{word: True})


def test_presence_is_seen_by_others_and_ends_with_its_process(tmp_path: Path) -> None:
    one, other = Presence(tmp_path), Presence(tmp_path)
    one.enter()
    assert one.lives(one.name) and other.others() == [one.name] and one.others() == []
    other.enter()
    one.leave()
    assert not other.lives(one.name) and other.others() == []
    (tmp_path / PROCESSES / "gone").touch()  # left by a process that was killed
    assert other.others() == [] and not other.lives("gone") and not other.lives("never")
    one.enter()
    assert sorted(path.name for path in (tmp_path / PROCESSES).iterdir()) == sorted([one.name, other.name])
    (tmp_path / PROCESSES / "killed").touch()
    one.leave()
    other.leave()
    assert list(tmp_path.iterdir()) == []
