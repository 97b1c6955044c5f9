"""Several processes train what one trains: the same gradients, sums of deltas only, and an end that they share."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from tests.conftest import TEXTS, save_drawings, write_csv
from tests.runs.test_resuming import files_of, writing
from tests.training.several import carry_out
from tunesmith.core.errors import CheckpointError
from tunesmith.core.launch import Place, heed_again
from tunesmith.training.checkpoints import newest
from tunesmith.training.processes import ALONE, Processes
from tunesmith.training.stopping import heeding

Found = dict[str, Any]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at now."""
    open_ones = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in open_ones]
    for one in open_ones:
        one.close()
    return ports


def together(folder: Path, parts: list[tuple[int, list[Found]]]) -> list[list[list[Found]]]:
    """Start processes that do the jobs of each part; what each of them found."""
    folder.mkdir()
    jobs = [job for _, some in parts for job in some]
    for job, port in zip(jobs, free_ports(len(jobs)), strict=True):
        job["port"] = port
    (folder / "jobs.json").write_text(json.dumps(parts))
    own = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "tests.training.several", str(folder)]
    subprocess.run(words, env={**os.environ, **own}, timeout=300, check=True)
    files = [[folder / f"found-{count}-{rank}.jsonl" for rank in range(count)] for count, _ in parts]
    return [[[json.loads(line) for line in path.read_text().splitlines()] for path in part] for part in files]


def changed(recipe: Found, output: str, **keys: Any) -> Found:
    training = {**recipe["training"], **keys.pop("training", {})}
    return {**recipe, **keys, "training": training, "output": str(Path(recipe["output"]).parent / output)}


@pytest.fixture(scope="module")
def recipe(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """A recipe in float64 in which nothing is dropped; the last step of an epoch has one row."""
    folder = tmp_path_factory.mktemp("several")
    rows = [(f"{text} {extra}", label) for label, texts in TEXTS.items() for text in texts for extra in "abc"]
    write_csv(folder / "train.csv", [*rows, ("good morning my friend", "greeting")])
    write_csv(folder / "test.csv", rows[::5])
    return {
        "model": {"name": str(tiny_folder), "dtype": "float64"},
        "task": {"name": "text-classification", "head_dropout": 0.0},
        "data": {"train": str(folder / "train.csv"), "validation": str(folder / "test.csv")},
        "method": {"name": "lora", "rank": 2},
        "training": {"epochs": 2, "batch_size": 12, "dropout": 0.0, "tokens_per_pass": 40},
        "evaluation": {"resamples": 100, "baselines": False},
        "output": str(folder / "run"),
    }


SHARED = {"shard_base": True}
CANDIDATES = [{}, {"method": "bitfit", "training.epochs": 1}, {"training.batch_size": 5, "seed": 1}]


@pytest.fixture(scope="module")
def writer(tiny_writer: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """A recipe whose rows teach different numbers of tokens."""
    folder = tmp_path_factory.mktemp("several-writers")
    given: Found = writing(folder, tiny_writer, method={"name": "lora", "rank": 2})
    model = {"name": str(tiny_writer), "dtype": "float64"}
    return {**given, "model": model, "evaluation": {"resamples": 100, "baselines": False}}


@pytest.fixture(scope="module")
def mixer(recipe: Found, tiny_vision: Path) -> Found:
    """A recipe whose images get parts of others."""
    return {
        **recipe,
        "model": {"name": str(tiny_vision), "dtype": "float64"},
        "task": {"name": "image-classification", "head_dropout": 0.0},
        "data": {"train": str(save_drawings(folder_of(recipe, "drawings.zip"), classes=4)), "validation": 0.2,
                 "augmentation": [{"name": "cutmix", "rate": 1}]},
        "training": {**recipe["training"], "tokens_per_pass": 12},
    }  # fmt: skip


@pytest.fixture(scope="module")
def found(
    recipe: Found, writer: Found, mixer: Found, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[Found]]:
    """What two processes found in jobs done one after the other, the last of which leaves only the first process.

    Under "four" and "four in parts" it is what four processes found.
    """
    folder = tmp_path_factory.mktemp("jobs") / "all"
    dropping = {"task": "text-classification", "training": {"dropout": 0.1, "checkpoint_every_steps": 1}}
    compared = {"name": "text-classification", "losses": ["cross-entropy", "supervised-contrastive"]}
    often = {"training": {"checkpoint_every_steps": 1, **SHARED}}
    judged = {**writer["evaluation"], "baselines": ["untuned"]}
    jobs: dict[str, Found] = {
        "plain": {"recipe": changed(recipe, "two"), "gradients": str(folder / "two-")},
        "writer": {"recipe": changed(writer, "two", evaluation=judged)},
        "in parts": {"recipe": changed(recipe, "two-parts", training=SHARED), "gradients": str(folder / "parts-")},
        "writer in parts": {"recipe": changed(writer, "two-parts", training=SHARED, evaluation=judged)},
        "candidates": {"recipe": changed(recipe, "two-candidates", candidates=CANDIDATES)},
        "whole": {"recipe": changed(recipe, "whole", **dropping)},
        "killed": {"recipe": changed(recipe, "again", **dropping), "at": 6, "what": "killed"},
        "resumed": {"recipe": changed(recipe, "again", **dropping), "resume": True},
        "mixed": {"recipe": changed(mixer, "two-mixed")},
        "compared": {"recipe": changed(recipe, "compared", task=compared)},
        "ended": {"recipe": changed(recipe, "ended"), "at": 3, "what": "asked to end"},
        "gone": {"recipe": changed(recipe, "gone", **often), "at": 3, "what": "gone"},
    }
    four = [
        {"recipe": changed(recipe, "four"), "gradients": str(folder / "four-")},
        {"recipe": changed(recipe, "four-parts", training=SHARED), "gradients": str(folder / "four-parts-")},
    ]
    (first, second), of_four = together(folder, [(2, list(jobs.values())), (4, four)])
    by_name = {name: [first[turn], *second[turn : turn + 1]] for turn, name in enumerate(jobs)}
    return {**by_name, "four": [one[0] for one in of_four], "four in parts": [one[1] for one in of_four]}


def folder_of(recipe: Found, name: str) -> Path:
    return Path(recipe["output"]).parent / name


def furthest(first: Path, second: Path, name: str = "delta/adapter_model.safetensors") -> float:
    """The largest difference between two runs' tensors, relative to the largest number."""
    ours, theirs = load_file(first / name), load_file(second / name)
    assert ours.keys() == theirs.keys()
    return max(float((ours[key] - theirs[key]).abs().max() / theirs[key].abs().max()) for key in ours)


def test_gradients_equal_those_of_one_process(recipe: Found, found: Found, tmp_path: Path) -> None:
    alone = changed(recipe, "one")
    carry_out({"recipe": alone, "gradients": str(tmp_path / "one-")}, 0)
    assert [one["processes"]["count"] for one in found["four"]] == [4] * 4
    held = [one["processes"]["held_block_bytes"] for one in found["four in parts"]]
    assert held == [one_part_of(found["four in parts"][0], 4)] * 4
    theirs = load_file(tmp_path / "one-0")
    folder = Path(found["plain"][0]["gradients"])
    for name in ("two-0", "two-1", "parts-0", "parts-1", "four-0", "four-3", "four-parts-0", "four-parts-3"):
        ours = load_file(folder / name)
        assert len(ours) == len(theirs) == 8
        for step, gradient in theirs.items():
            assert float((ours[step] - gradient).abs().max()) <= 1e-10 * float(gradient.abs().max())
    for name in ("two", "two-parts", "four", "four-parts"):
        assert furthest(folder_of(recipe, name), folder_of(recipe, "one")) <= 1e-10
        assert furthest(folder_of(recipe, name), folder_of(recipe, "one"), "head.safetensors") <= 1e-10


def test_the_loss_is_divided_by_the_tokens_of_the_whole_step(writer: Found, found: Found) -> None:
    carry_out({"recipe": changed(writer, "one")}, 0)
    assert found["writer"][0]["processes"]["count"] == 2
    assert furthest(folder_of(writer, "two"), folder_of(writer, "one")) <= 1e-4  # Llama's norms compute in float32


def one_part_of(job: Found, count: int) -> int:
    """What one of several processes holds of a base that they share out."""
    whole: int = job["processes"]["block_bytes"]
    return whole // count


def test_processes_hold_a_part_of_the_base_each(found: Found) -> None:
    for one in found["in parts"]:
        assert one["processes"]["held_block_bytes"] == one_part_of(one, 2)
    assert "block_bytes" not in found["plain"][0]["processes"]


def test_the_first_process_judges_a_base_in_parts_as_a_whole_one(writer: Found, found: Found) -> None:
    """It alone writes answers and runs the baseline; the others give their parts meanwhile."""
    whole, parts = folder_of(writer, "two"), folder_of(writer, "two-parts")
    assert furthest(parts, whole) <= 1e-12
    ours, theirs = (json.loads((folder / "metrics.json").read_text()) for folder in (parts, whole))
    for key in ("metrics", "baselines", "trainable_parameters"):
        assert ours[key] == theirs[key]


def test_a_step_sends_the_delta_and_nothing_else(recipe: Found, found: Found) -> None:
    run = folder_of(recipe, "two")
    trained = json.loads((run / "metrics.json").read_text())["trainable_parameters"]
    for one in found["plain"]:
        assert one["processes"] == {"count": 2, "reduced_bytes_per_step": trained * 8, "reductions_per_step": 1}


def test_candidates_end_where_they_end_in_one_process(recipe: Found, found: Found) -> None:
    carry_out({"recipe": changed(recipe, "one-candidates", candidates=CANDIDATES)}, 0)
    ours, theirs = (
        json.loads((folder_of(recipe, name) / "metrics.json").read_text())
        for name in ("two-candidates", "one-candidates")
    )
    for one, other in zip(ours["candidates"], theirs["candidates"], strict=True):
        assert one["best_epoch"] == other["best_epoch"]
        assert one["validation"]["train loss"] == pytest.approx(other["validation"]["train loss"], rel=1e-9)
    assert furthest(folder_of(recipe, "two-candidates"), folder_of(recipe, "one-candidates")) <= 1e-10


def test_images_that_share_labels_are_drawn_alike_in_all_processes(mixer: Found, found: Found) -> None:
    carry_out({"recipe": changed(mixer, "one-mixed")}, 0)
    assert found["mixed"][1]["processes"]["count"] == 2
    assert furthest(folder_of(mixer, "two-mixed"), folder_of(mixer, "one-mixed")) <= 1e-10


def test_a_resumed_run_of_two_equals_an_uninterrupted_one(recipe: Found, found: Found) -> None:
    assert [one["error"] for one in found["killed"]] == ["killed", "killed"]
    whole, again = files_of(folder_of(recipe, "whole")), files_of(folder_of(recipe, "again"))
    assert whole.keys() == again.keys()
    assert not [name for name in whole if whole[name] != again[name]]


def test_losses_that_compare_rows_are_refused(found: Found) -> None:
    first, second = found["compared"]
    assert first["error"].startswith("training.tokens_per_pass: the head or a loss of the task compares all rows")
    assert second in ({"code": 2}, {"error": f"process 1 of 2: {first['error']}"})  # it waits for the first one's words


def test_an_error_that_all_meet_is_said_by_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    store = dist.HashStore()
    monkeypatch.setattr(Processes, "gathered", lambda self, value: [value])
    first, second = Processes(Place(0, 2), store), Processes(Place(1, 2), store)
    second._key = first._key
    said: list[object] = []

    def meet(one: Processes) -> None:
        try:
            with one.ending_together():
                raise CheckpointError("the same")
        except (CheckpointError, SystemExit) as error:
            said.append(error)

    waiting = threading.Thread(target=meet, args=(second,))
    waiting.start()
    meet(first)
    waiting.join()
    assert sorted(map(repr, said)) == ["CheckpointError('the same')", "SystemExit(2)"]


def test_one_that_is_asked_to_end_ends_all_after_the_same_step(recipe: Found, found: Found) -> None:
    assert found["ended"] == [{"code": 143}, {"code": 143}]
    checkpoint = newest(folder_of(recipe, "ended"))
    assert checkpoint is not None
    assert checkpoint.step == 4


def test_a_process_that_dies_ends_the_others(recipe: Found, found: Found) -> None:
    (first,) = found["gone"]
    assert "process 0 of 2: another process ended, so this one ends too" in first["error"]
    checkpoint = newest(folder_of(recipe, "gone"))
    assert checkpoint is not None
    assert checkpoint.step == 3


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_rows_are_shared_out_evenly_and_each_once(count: int) -> None:
    lengths = [9, 3, 14, 3, 8, 2, 7, 5, 11, 4, 4, 6]
    everyone = [Processes(Place(rank, count)) for rank in range(count)]
    parts = [one.share(lengths, [0] * count) for one in everyone]
    assert sorted(row for part in parts for row in part) == list(range(len(lengths)))
    tokens = [sum(lengths[row] for row in part) for part in parts]
    assert max(tokens) - min(tokens) <= min(lengths) + 1


def test_a_process_alone_sends_nothing() -> None:
    assert ALONE.sums([1.5]) == [1.5]
    assert ALONE.of_first(lambda: "x") == "x"
    assert ALONE.facts() == {}


def test_of_several_processes_each_hears_the_first_signal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher passes Ctrl-C on that the terminal sent already; the second one must not break the step off."""
    for key, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(key, value)
    said: list[str] = []
    try:
        with heeding(said.append) as asked:
            for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
                os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGINT)  # while the first process evaluates
    finally:
        heed_again()
    assert asked.by == signal.SIGINT
    assert len(said) == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_gradient_that_one_process_lacks_is_that_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parameter that no row of one process reaches, as an expert's, moves there as in the others."""
    here = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    here[0].grad = torch.tensor([1.0, 2.0])
    others = torch.tensor([10.0, 20.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0])  # the second is there and exactly zero
    monkeypatch.setattr(dist, "all_reduce", lambda flat: flat.add_(others))
    Processes(Place(0, 2)).sum_gradients(here)
    assert here[0].grad.tolist() == [11.0, 22.0]
    assert here[1].grad is not None
    assert here[1].grad.tolist() == [0.0, 0.0]
    assert here[2].grad is None


def test_only_what_differs_between_processes_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"recipe": {"model": "m", "training": {"batch_size": 8, "epochs": 2}}, "seed": 0}
    there = {"recipe": {"model": "m", "training": {"batch_size": 9, "epochs": 2}}, "seed": 0}
    monkeypatch.setattr(Processes, "gathered", lambda self, value: [value, there])
    with pytest.raises(CheckpointError) as error:
        Processes(Place(0, 2)).check_alike(here)
    assert "process 1 trains something else: recipe.training.batch_size is 9 there and 8 here." in str(error.value)
