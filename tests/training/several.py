"""Several processes of a test: python -m tests.training.several FOLDER.

FOLDER/jobs.json lists numbers of processes, each with the jobs they do in turn; a job is a recipe, and perhaps a step
before which something happens.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import tunesmith
from tunesmith.core.errors import TunesmithError
from tunesmith.recipe.loading import load_recipe
from tunesmith.runs import writing
from tunesmith.training.loop import Loop
from tunesmith.training.optimizing import Optimizer


class Killed(Exception):
    """Stands for processes that are gone."""


def carry_out(job: dict[str, Any], rank: int) -> dict[str, Any]:
    """Do one job; say how it ended."""
    timed, stepped = Loop._timed, Optimizer.step
    gradients: list[torch.Tensor] = []

    def watched(self: Loop, *given: Any) -> None:
        if self.steps == job.get("at"):
            happen(job["what"], rank)
        timed(self, *given)

    def recorded(self: Optimizer, *given: Any) -> dict[str, float]:
        gradients.append(torch.cat([one.grad.flatten() for one in self.parameters if one.grad is not None]))
        return stepped(self, *given)

    Loop._timed, Optimizer.step = watched, recorded  # type: ignore[method-assign]
    try:
        run = tunesmith.train(job["recipe"], resume=job.get("resume", False))
        found = {"processes": run.summary["processes"], "gradients": str(Path(job.get("gradients", "")).parent)}
    except Killed:
        found = {"error": "killed"}
    except TunesmithError as error:
        found = {"error": str(error)}
    except SystemExit as leaving:
        found = {"code": leaving.code}
    finally:
        Loop._timed, Optimizer.step = timed, stepped  # type: ignore[method-assign]
    if job.get("gradients"):
        save_file({str(number): one for number, one in enumerate(gradients)}, job["gradients"] + str(rank))
    return found


def happen(what: str, rank: int) -> None:
    """Let something happen to a process."""
    if what == "killed":
        raise Killed
    if what == "gone" and rank == 1:
        os._exit(9)
    if what == "asked to end" and rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)


def work(folder: Path, jobs: list[dict[str, Any]], rank: int, count: int) -> None:
    """Do jobs in turn, as a process of that rank."""
    for job in jobs:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_PORT": str(job["port"])}
        found = carry_out(job, rank)
        with open(folder / f"found-{count}-{rank}.jsonl", "a") as file:
            file.write(json.dumps(found) + "\n")


def main(folder: Path) -> None:
    """Let as many processes as each part says do its jobs: forks of this one, for imports take longer than the jobs."""
    torch.set_num_threads(1)
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    writing.render = lambda content: f"{content.title}\n"  # reports are not compared
    for count, jobs in json.loads((folder / "jobs.json").read_text()):
        load_recipe(jobs[0]["recipe"])  # which imports the components it names
        forks = []
        for rank in range(count):
            forks.append(os.fork())
            if not forks[-1]:
                work(folder, jobs, rank, count)
                os._exit(0)
        for fork in forks:
            os.waitpid(fork, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
