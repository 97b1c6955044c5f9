"""A search finds a better prompt than the hand-written start, twice the same one, and the same after a kill.

    TUNESMITH_DATA=... TUNESMITH_MODELS=... python benchmarks/prompt_search.py [--budget 40] [--models masked causal]
                                                               [--rows 150] [--held 450]

Task: the ten domains of CLINC150. Models: a masked one of 0.6 million numbers trained here on its training texts,
labels left out; stories260K, a causal one; MiniLM, a sentence encoder. Proposals read 400 training rows, `--rows` of
the validation rows choose, `--held` others measure the gain; test is not read. Each search runs in a process of its
own: once, once more, and once killed (SIGKILL) and resumed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import prompt_rows

_EPOCHS = 6  # of the masked model
_MODELS = ("masked", "causal", "sentence")


def recipe(model: str, folder: Path, validation: int) -> dict[str, Any]:
    """Return the recipe whose prompt is the hand-written start."""
    place = {
        "masked": lambda: str(prompt_rows.masked_model(_EPOCHS)),
        "causal": lambda: str(common.place("TUNESMITH_MODELS") / "stories260K"),
        "sentence": lambda: "minilm",
    }[model]()
    templates = {"masked": prompt_rows.HAND, "causal": "{text}\nIt is about {label}", "sentence": "{text}"}
    data = prompt_rows.domains(folder, 400, validation, 10)
    return {
        "task": "prompt-classification",
        "model": place,
        "data": {"train": data["train"], "validation": data["validation"]},
        "prompt": {"template": templates[model], "label_words": prompt_rows.WORDS},
    }


def search(work: dict[str, Any]) -> dict[str, Any]:
    """Carry out one search in this process."""
    import tunesmith

    return tunesmith.search_prompts(
        work["recipe"],
        work["budget"],
        work["output"],
        [f"search.rows={work['rows']}", f"search.measure={work['measure']}"],
        strategy=work["strategy"],
        resume=work["resume"],
    )


def killed(work: dict[str, Any], lines: int, threads: int) -> None:
    """Kill a search once it has tried so many candidates."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, "worker", json.dumps(work)]
    tried = Path(work["output"]) / "tried.jsonl"
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and (not tried.exists() or tried.read_bytes().count(b"\n") < lines):
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)


def left(folder: Path) -> list[Any]:
    """Return what a search leaves, times and places aside."""
    tried = [json.loads(line) for line in (folder / "tried.jsonl").read_text().splitlines()]
    result = json.loads((folder / "result.json").read_text())
    own = [{key: value for key, value in one.items() if key not in ("seconds", "prompt")} for one in (*tried, result)]
    return [own, (folder / "prompt.yaml").read_text()]


def case(model: str, given: Any) -> dict[str, Any]:
    """Search with one model, three ways."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        validation = given.rows + given.held
        work = {"recipe": recipe(model, folder, validation), "budget": given.budget, "strategy": given.strategy,
                "rows": given.rows, "measure": given.held / validation, "resume": False}  # fmt: skip
        outputs = {name: folder / name for name in ("once", "twice", "killed")}
        found = common.child(__file__, {**work, "output": str(outputs["once"])}, given.threads)
        common.child(__file__, {**work, "output": str(outputs["twice"])}, given.threads)
        killed({**work, "output": str(outputs["killed"])}, max(2, given.budget // 3), given.threads)
        before = (outputs["killed"] / "tried.jsonl").read_bytes().count(b"\n")
        common.child(__file__, {**work, "output": str(outputs["killed"]), "resume": True}, given.threads)
        same = {name: left(outputs["once"]) == left(outputs[name]) for name in ("twice", "killed")}
        prompt = (outputs["once"] / "prompt.yaml").read_text().split("\n", 1)[1]
    return {**found, "prompt": prompt, "same_twice": same["twice"], "same_after_kill": same["killed"],
            "tried_before_kill": before, "strategy": given.strategy, "budget": given.budget}  # fmt: skip


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--budget", type=int, default=40)
    parser.add_argument("--strategy", default="beam")
    parser.add_argument("--rows", type=int, default=150, help="validation rows that choose")
    parser.add_argument("--held", type=int, default=450, help="validation rows that measure the gain")
    parser.add_argument("--models", nargs="+", choices=_MODELS, default=["masked", "causal"])
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    path = common.RESULTS / "prompt_search.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for model in given.models:
        results[model] = found = case(model, given)
        gain = found["gain"]
        print(f"{model}: {found['start']['value']:.3f} -> {found['found']['value']:.3f}, gain {gain['value']:+.3f} "
              f"({gain['low']:+.3f} to {gain['high']:+.3f}), same twice {found['same_twice']}, after a kill "
              f"{found['same_after_kill']}")  # fmt: skip
        results["machine"] = common.machine(given.threads)
        path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    common.begin(search, main)
