"""A closed loop that searches prompts beside one that does not: the same recipe, the same budget of trials.

    TUNESMITH_DATA=... python benchmarks/prompt_design.py [--trials 12] [--seed 0] [--sides with without]

Task: the ten domains of CLINC150, MiniLM asked for hand-written words, LoRA on 100 rows; 100 validation rows, and 300
of test, which each loop scores once at its end.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import common
import prompt_rows

_SHARES = {"with": 0.2, "without": 0.0}
_SAID = ("score", "chosen_by", "start", "overrides", "designs", "decisions", "seconds", "attempts", "ended")


def loop(work: dict[str, Any]) -> dict[str, Any]:
    """Go round once in this process."""
    import tunesmith

    found = tunesmith.loop(work["recipe"], trials=work["trials"], width=3, members=1, prompt_share=work["share"])
    tried = [json.loads(line) for line in (Path(work["recipe"]["output"]) / "rounds.jsonl").read_text().splitlines()]
    tests = [
        {"round": one["number"], "by": attempt["by"], "value": attempt["outcome"]["value"], "test": attempt["test"]}
        for one in tried
        for attempt in one["attempts"]
    ]
    return {**{name: found[name] for name in _SAID}, "tried": tests}


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sides", nargs="+", choices=list(_SHARES), default=list(_SHARES))
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    for name in given.sides:
        with tempfile.TemporaryDirectory() as place:
            recipe = {
                "task": "prompt-classification",
                "model": "minilm",
                "data": prompt_rows.domains(Path(place), 100, 100, 300),
                "prompt": {"template": "{text}", "label_words": prompt_rows.WORDS},
                "method": {"name": "lora", "rank": 8},
                "training": {"epochs": 2, "learning_rate": 1e-3},
                "evaluation": {"baselines": False},
                "seed": given.seed,
                "output": str(Path(place) / "loop"),
            }
            work = {"recipe": recipe, "trials": given.trials, "share": _SHARES[name]}
            found = common.child(__file__, work, given.threads)
        common.keep("prompt_design", f"{name}, {given.trials} trials, seed {given.seed}", found)
        print(f"{name}: {found['score']['value']:.4f} on test, {found['attempts']['all']} attempts, "
              f"{found['seconds']:.0f} s")  # fmt: skip
        for one in found["designs"]:
            print(one["said"])
    common.keep("prompt_design", "machine", common.machine(given.threads))


if __name__ == "__main__":
    common.begin(loop, main)
