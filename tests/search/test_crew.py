"""Workers of a search: each trial is claimed by one, those of a worker that dies are given out again, all are ended."""

import os
import queue
import signal
import sys
import threading
import time
import types
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import pytest

import tunesmith
from tests.conftest import TEXTS, write_csv
from tunesmith.core.errors import MissingDependency, RecipeError
from tunesmith.core.progress import Silence
from tunesmith.recipe.loading import load_recipe
from tunesmith.search.crew import Crew, portions
from tunesmith.search.passes import OTHER_ROWS
from tunesmith.search.pools.base import Hear, Message, Pool
from tunesmith.search.pools.local import Local
from tunesmith.search.pools.ray import Ray

pytest.importorskip("optuna", reason="the extra 'search' is not installed")

Answer = Callable[["Line", Message], None]


class Line:
    """A worker without a model: `answer` says what it does with its trials."""

    def __init__(self, number: int, hear: Hear, answer: Answer) -> None:
        self.number, self.hear, self.answer, self.closed, self.got = number, hear, answer, False, list[Message]()

    def send(self, message: Message) -> None:
        self.got.append(message)
        if "trials" in message or "stop" in message:
            self.answer(self, message)

    def close(self) -> str:
        self.closed = True
        return "signal SIGKILL"

    def find(self, message: Message, validation: str = "rows") -> None:
        found = [[number, {"state": "complete", "value": float(number)}] for number, _ in message["trials"]]
        self.hear({"found": found, "validation": validation})


class Fake(Pool):
    """A pool of such workers."""

    name: ClassVar[str] = "fake"
    answer: Any = None
    lines: list[Any] = []  # noqa: RUF012 (a field of pydantic's, copied for each)

    def start(self, threads: int, hear: Hear) -> Line:
        self.lines.append(Line(len(self.lines), hear, self.answer))
        return self.lines[-1]


def crew(answer: Answer, count: int = 2) -> tuple[Crew, Fake]:
    pool = Fake(answer=answer)
    return Crew(pool, count, 1, {"recipe": "r.yaml"}, Silence(), lambda share: None), pool


@pytest.fixture(scope="module")
def recipes(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    path = tmp_path_factory.mktemp("crew") / "train.csv"
    write_csv(path, [(text, label) for label, texts in TEXTS.items() for text in texts])
    values = {"model": str(tiny_folder), "data": {"train": str(path), "validation": 0.25}, "method": "lora"}
    return {number: load_recipe(values, [f"seed={number}"]) for number in range(6)}


def never(number: int, epoch: int, score: float) -> bool:
    return False


def words(recipes: dict[int, Any]) -> dict[int, list[str]]:
    return {number: [f"seed={number}"] for number in recipes}


def test_every_trial_is_claimed_once(recipes: dict[int, Any]) -> None:
    team, pool = crew(lambda line, message: line.find(message))
    for _ in range(2):
        found = team.carry_out(recipes, words(recipes), never)
        assert {number: one.value for number, one in found.items()} == {number: float(number) for number in recipes}
    claimed = Counter(number for line in pool.lines for one in line.got for number, _ in one.get("trials", ()))
    assert claimed == dict.fromkeys(recipes, 2) and len(pool.lines) <= 2
    assert all(line.got[0] == {"recipe": "r.yaml"} for line in pool.lines)
    team.close()
    assert all(line.closed for line in pool.lines)


def test_trials_of_a_worker_that_dies_are_given_out_again(recipes: dict[int, Any]) -> None:
    def answer(line: Line, message: Message) -> None:
        line.hear(None) if line.number == 0 else line.find(message)

    team, pool = crew(answer)
    found = team.carry_out(recipes, words(recipes), never)
    assert all(one.state == "complete" for one in found.values()) and len(found) == 6
    assert len(pool.lines) == 3 and pool.lines[0].closed


def test_a_trial_that_ends_its_worker_twice_has_failed_alone(recipes: dict[int, Any]) -> None:
    def answer(line: Line, message: Message) -> None:
        line.hear(None) if any(number == 4 for number, _ in message["trials"]) else line.find(message)

    found = crew(answer)[0].carry_out(recipes, words(recipes), never)
    assert [number for number, one in found.items() if one.state == "failed"] == [4]
    assert found[4].reason == "its worker ended twice (signal SIGKILL), perhaps for want of memory"


def test_scores_are_heard_and_answered(recipes: dict[int, Any]) -> None:
    heard = []

    def answer(line: Line, message: Message) -> None:
        if "trials" in message:
            line.hear({"heard": [message["trials"][0][0], 1, 0.5]})
        else:
            line.find(line.got[-2])

    def listen(number: int, epoch: int, score: float) -> bool:
        heard.append((number, epoch, score))
        return number == 0

    _, pool = team = crew(answer)
    team[0].carry_out(recipes, words(recipes), listen)
    assert sorted(heard) == [(0, 1, 0.5), (3, 1, 0.5)]
    assert {one["stop"] for line in pool.lines for one in line.got if "stop" in one} == {True, False}


def test_rows_that_choose_have_to_be_the_same_for_all_workers(recipes: dict[int, Any]) -> None:
    found = crew(lambda line, message: line.find(message, f"rows {line.number}"))[0].carry_out(
        recipes, words(recipes), never
    )
    assert {one.reason for one in found.values()} == {"", OTHER_ROWS}


def test_what_can_train_together_stays_together(recipes: dict[int, Any]) -> None:
    first = recipes[0]
    other = first.recipe.model_copy(update={"data": first.recipe.data.model_copy(update={"max_tokens": 5})})
    mixed = {**recipes, 1: type(first)(**{**vars(first), "recipe": other}), 3: first}
    mixed[4] = mixed[1]
    shared = [sorted(one) for one in portions(mixed, 3)]
    assert [1, 4] in shared and sorted(number for one in shared for number in one) == sorted(mixed)


# Processes ----------------------------------------------------------------------------------------------------


def scores(found: dict[str, Any]) -> Any:
    trials = tunesmith.core.files.read_json(Path(found["report"]).parent / "trials.json", list)
    return [(one["overrides"], one["outcome"]["state"], one["outcome"]["value"]) for one in trials], [
        pytest.approx(one["outcome"]["loss"], rel=1e-4) for one in trials
    ]


@pytest.fixture(scope="module")
def alone(space: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    words = [f"output={tmp_path_factory.mktemp('alone') / 's'}"]
    return scores(tunesmith.search_settings(space, words, trials=4, strategy="random", width=2))


def test_processes_do_the_same_trials_and_one_that_is_killed_loses_none(
    space: dict[str, Any],
    alone: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start, lines = Local.start, list[Any]()

    def started(self: Local, threads: int, hear: Hear) -> Any:
        lines.append(start(self, threads, hear))
        if len(lines) == 1:
            os.kill(lines[0]._process.pid, signal.SIGKILL)
        return lines[-1]

    monkeypatch.setattr(Local, "start", started)
    settings: dict[str, Any] = {"trials": 4, "strategy": "random", "width": 2, "workers": 2}
    found = tunesmith.search_settings(space, [f"output={tmp_path / 's'}"], **settings)
    assert scores(found) == alone
    trials = tunesmith.core.files.read_json(tmp_path / "s" / "trials.json", list)
    able = [one["number"] for one in trials if one["outcome"]["state"] == "complete" and one["same_as"] is None]
    assert {path.name for path in (tmp_path / "s" / "answers").iterdir()} == {f"{one:05d}.parquet" for one in able}
    assert "a worker ended (signal SIGKILL); its trials are given out again" in capsys.readouterr().err
    assert all(line._process.poll() is not None for line in lines)


def test_a_process_ends_when_nobody_speaks_to_it_any_more() -> None:
    heard: queue.Queue[Any] = queue.Queue()
    line = Local().start(1, heard.put)
    line._process.stdin.close()
    assert heard.get(timeout=120) is None
    assert line.close() == "exit code 0"


# Ray ----------------------------------------------------------------------------------------------------------


class _Queue(queue.Queue):  # type: ignore[type-arg]
    def __init__(self, actor_options: dict[str, int]) -> None:
        super().__init__()
        assert actor_options == {"num_cpus": 0}

    def shutdown(self, force: bool = False, immediate: bool = False) -> None:
        self.put(None)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """What the pool uses of Ray, each task a thread."""
    fake, queues = types.ModuleType("ray"), types.ModuleType("ray.util.queue")
    fake.options, fake.cancelled = [], []  # type: ignore[attr-defined]

    def remote(work: Any) -> Any:
        def begin(*given: Any) -> threading.Thread:
            thread = threading.Thread(target=run, args=(work, given), daemon=True)
            thread.start()
            return thread

        def options(**own: Any) -> Any:
            fake.options.append(own)  # type: ignore[attr-defined]
            return types.SimpleNamespace(remote=begin)

        return types.SimpleNamespace(options=options)

    def run(work: Any, given: Any) -> None:
        try:
            work(*given)
        except TypeError:  # None came: its queue was shut
            return

    fake.remote, fake.get = remote, lambda thread: thread.join()  # type: ignore[attr-defined]
    fake.init, fake.is_initialized = lambda **own: None, lambda: False  # type: ignore[attr-defined]
    fake.cluster_resources = lambda: {"CPU": 64.0, "GPU": 0.5}  # type: ignore[attr-defined]
    fake.cancel = lambda task, force: fake.cancelled.append(task)  # type: ignore[attr-defined]
    queues.Queue = _Queue  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setitem(sys.modules, "ray.util.queue", queues)
    yield fake


def test_a_pool_on_ray_gives_the_same_result(space: dict[str, Any], alone: Any, tmp_path: Path, ray: Any) -> None:
    settings: dict[str, Any] = {"trials": 4, "strategy": "random", "width": 2, "pool": "ray"}
    found = tunesmith.search_settings(space, [f"output={tmp_path / 's'}"], **settings, pool_settings={"gpus": 0.5})
    assert scores(found) == alone
    assert [one["num_gpus"] for one in ray.options] == [0.5] and len(ray.cancelled) == 1
    deadline = time.monotonic() + 20
    while ray.cancelled[0].is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_workers_that_a_cluster_has_no_room_for_are_refused(space: dict[str, Any], tmp_path: Path, ray: Any) -> None:
    words, settings = [f"output={tmp_path / 's'}"], {"trials": 2, "pool": "ray", "workers": 2}
    with pytest.raises(RecipeError, match=r"2 of 0.5 GPUs each, and the Ray cluster has 0.5\..*pool_settings.gpus"):
        tunesmith.search_settings(space, words, **settings, pool_settings={"gpus": 0.5})
    with pytest.raises(RecipeError, match="2 of 33 CPUs each, and the Ray cluster has 64"):
        tunesmith.search_settings(space, words, **settings, pool_settings={"cpus": 33})
    assert not ray.options and not (tmp_path / "s").exists()


@pytest.mark.skipif(find_spec("ray") is None, reason="the extra 'ray' is not installed")
def test_ray_itself_gives_the_same_result_and_a_killed_worker_loses_none(
    space: dict[str, Any], alone: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    start, lines = Ray.start, list[Any]()

    def started(self: Ray, threads: int, hear: Hear) -> Any:
        first = not lines

        def heard(message: Message | None) -> None:
            nonlocal first
            if first:  # it has begun
                first = False
                ray.cancel(lines[0]._task, force=True)
            hear(message)

        lines.append(start(self, threads, heard))
        return lines[-1]

    monkeypatch.setattr(Ray, "start", started)
    try:
        settings: dict[str, Any] = {"trials": 4, "strategy": "random", "width": 2, "workers": 2, "pool": "ray"}
        found = tunesmith.search_settings(space, [f"output={tmp_path / 's'}"], **settings, pool_settings={"cpus": 1})
    finally:
        ray.shutdown()
    assert scores(found) == alone
    assert "a worker ended" in capsys.readouterr().err and len(lines) >= 3


def test_mistakes_are_named(space: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependency, match=r"the pool ray needs the package 'ray'.*tunesmith\[ray\]"):
        tunesmith.search_settings(space, [f"output={tmp_path / 's'}"], trials=2, pool="ray")
    with pytest.raises(RecipeError, match="unknown pool 'rai'"):
        tunesmith.search_settings(space, [f"output={tmp_path / 's'}"], trials=2, pool="rai")
    with pytest.raises(RecipeError, match="workers"):
        tunesmith.search_settings(space, [f"output={tmp_path / 's'}"], trials=2, workers=0)
    assert not (tmp_path / "s").exists()
