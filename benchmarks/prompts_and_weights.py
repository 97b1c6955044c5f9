"""Soft prompt, hard prompt, LoRA and their combinations under equal processor time on one task.

    TUNESMITH_DATA=... python benchmarks/prompts_and_weights.py [--seconds 8] [--rows 400]

Task: the ten domains of CLINC150, asked of the masked model of prompt_rows.py; 400 training rows, 300 validation rows,
1,000 test rows. Every side has the same processor seconds: for a hard prompt the search takes them, for weights
training does, and where both are used each gets half. Epochs and evaluations are what fits: a few are timed first.
Processor time is counted, so other work on the machine changes nothing. Test is scored once per side.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml

import common
import prompt_rows

_EPOCHS, _TIMED = 6, 6  # epochs of the masked model; evaluations that are timed
_LONGEST = 54  # tokens of a row: ten virtual ones have room beside them
_PLAIN = {"template": "{text} {label}", "label_words": prompt_rows.WORDS}
_HARD = {"template": prompt_rows.HAND, "label_words": prompt_rows.WORDS}
_LORA: dict[str, Any] = {"name": "lora", "rank": 8}
_SOFT: dict[str, Any] = {"name": "prompt-tuning", "length": 10}
_RATES = {"none": 1e-3, "lora": 3e-3, "prompt-tuning": 3e-2, "prefix": 1e-2, "fusion": 3e-3}

# Side: the prompt (plain, hand or found), the method, and whether it starts from the found prompt's text.
SIDES: dict[str, tuple[str, dict[str, Any]]] = {
    "hand-written prompt": ("hand", {"name": "none"}),
    "found prompt": ("found", {"name": "none"}),
    "soft prompt": ("plain", _SOFT),
    "soft prompt from the found text": ("plain", {**_SOFT, "start": "text", "start_text": "FOUND"}),
    "prefix from the found text": ("plain", {"name": "prefix", "length": 10, "start": "text", "start_text": "FOUND"}),
    "LoRA": ("plain", _LORA),
    "LoRA + found prompt": ("found", _LORA),
    "LoRA + soft prompt": ("plain", {"name": "fusion", "members": [_LORA, _SOFT]}),
    "LoRA + soft + found prompt": ("found", {"name": "fusion", "members": [_LORA, _SOFT]}),
}


def work(given: dict[str, Any]) -> dict[str, Any]:
    """Search, or train one side within its processor seconds, in this process."""
    import tunesmith

    began, since = time.process_time(), time.perf_counter()
    if given["do"] == "search":
        options = ["search.rows=100"]
        timed = tunesmith.search_prompts(given["recipe"], _TIMED, given["output"] + "-timed", options)
        one = timed["seconds"] * _share(began, time.perf_counter() - since) / timed["evaluations"]
        began, budget = time.process_time(), max(1, int(given["seconds"] / one))
        found = tunesmith.search_prompts(given["recipe"], budget, given["output"], options)
        return {**found, "cpu_seconds": time.process_time() - began, "budget": budget}
    recipe = given["recipe"]
    timed = {**recipe, "output": given["output"] + "-timed", "training": {**recipe["training"], "epochs": 1}}
    began = time.process_time()
    first = tunesmith.train(timed)
    epoch = first.summary["training_seconds"] * _share(began, first.summary["seconds"])
    epochs = max(1, int(given["seconds"] / max(epoch, 1e-3))) if given["seconds"] else 1
    recipe = {**recipe, "training": {**recipe["training"], "epochs": min(epochs, 200)}}
    began = time.process_time()
    run = tunesmith.train({**recipe, "output": given["output"]})
    return {
        "test": run.metrics["test"]["accuracy"],
        "validation": run.metrics["validation"]["accuracy"],
        "epochs": recipe["training"]["epochs"],
        "cpu_seconds": run.summary["training_seconds"] * _share(began, run.summary["seconds"]),
        "trained": run.summary["trainable_parameters"],
    }


def _share(began: float, seconds: float) -> float:
    """Return the processor's share of the wall's time since then."""
    return min(1.0, (time.process_time() - began) / max(seconds, 1e-9))


def start_text(prompt: dict[str, Any]) -> str:
    """Return a prompt's own text with its label words: what a soft prompt starts from."""
    import re

    text = re.sub(r"\{[^{}]*\}", " ", prompt["template"])
    words = [word for some in prompt.get("label_words", {}).values() for word in some]
    return " ".join([*text.split(), *words])


def sides(folder: Path, given: Any) -> dict[str, Any]:
    """Carry out every side."""
    data = prompt_rows.domains(folder, given.rows, 300, 1000)
    base = {"task": "prompt-classification", "model": str(prompt_rows.masked_model(_EPOCHS)),
            "data": {**data, "max_tokens": _LONGEST}}  # fmt: skip
    search = {"recipe": {**base, "prompt": _HARD}, "do": "search"}
    prompts, results = {"plain": _PLAIN, "hand": _HARD}, dict[str, Any]()
    for name, seconds in (("found", given.seconds), ("found in half the time", given.seconds / 2)):
        own = {**search, "seconds": seconds, "output": str(folder / name.replace(" ", "-"))}
        results[name] = work(own)
        prompts[name] = yaml.safe_load((Path(own["output"]) / "prompt.yaml").read_text())
        print(f"{name}: {results[name]['gain']}", flush=True)
    half = prompts["found in half the time"]
    for side, (prompt, method) in SIDES.items():
        shared = (prompt == "found" and method["name"] != "none") or method.get("start_text") == "FOUND"
        own = {**method, "start_text": start_text(half)} if "start_text" in method else method
        chosen = half if shared and prompt == "found" else prompts[prompt]
        recipe = {**base, "prompt": chosen, "method": own, "evaluation": {"baselines": False},
                  "training": {"learning_rate": _RATES[method["name"]], "batch_size": 16}}  # fmt: skip
        seconds = 0 if method["name"] == "none" else given.seconds / 2 if shared else given.seconds
        job = {"do": "train", "recipe": recipe, "seconds": seconds, "output": str(folder / side.replace(" ", "-"))}
        results[side] = found = work(job)
        print(f"{side}: test {found['test']['value']:.3f}, {found['epochs']} epochs, {found['cpu_seconds']:.1f} s",
              flush=True)  # fmt: skip
    return {"sides": {side: results[side] for side in SIDES},
            "searches": {name: results[name] for name in results if name not in SIDES},
            "prompt": half, "seconds": given.seconds, "machine": common.machine(given.threads)}  # fmt: skip


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as place:
        found = sides(Path(place), given)
    (common.RESULTS / "prompts_and_weights.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
