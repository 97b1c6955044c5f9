"""Run every comparison with peers, one after another, and make the tables and pictures of docs/benchmarks.

    TUNESMITH_DATA=... TUNESMITH_MODELS=... python benchmarks/suite.py [--rounds 3] [--threads 2]

It takes hours; each part can be run by itself, and `python benchmarks/report.py` makes the tables from what is there.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import common

PARTS: list[tuple[str, list[str], bool]] = [  # script, its words, whether it asks for rounds
    ("encoder_classification.py", ["speed"], True),
    ("instruction_tuning.py", ["--settings", "gsm8k"], True),
    ("instruction_tuning.py", ["--settings", "shared", "--batch", "16"], True),
    ("instruction_tuning.py", ["--settings", "135M", "--sides", "ours", "trl defaults"], True),
    (
        "instruction_tuning.py",
        [
            *("--settings", "template 32", "template 128", "template 512", "1:1", "5:1", "20:1"),
            *("--sides", "ours", "trl float32 by length", "trl defaults"),
        ],
        True,
    ),
    ("virtual_prompt.py", [], True),
    ("vision.py", [], True),
    ("longest.py", [], True),
    ("few_shot.py", [], True),
    ("frozen_depth.py", [], True),
    ("growth.py", [], True),
    ("many_deltas.py", [], True),
    ("prompt_search.py", [], False),
    ("prompts_and_weights.py", [], False),
    ("semi_supervised.py", [], False),
    ("dual_learning.py", [], False),
    ("attribute_zero_shot.py", [], False),
    ("operations.py", [], False),
    ("kept_bytes.py", [], False),
    ("memory.py", [], False),
    ("report.py", [], False),
]


def main() -> None:
    parser = common.parser(__doc__)
    given = common.turns(parser).parse_args()
    for script, words, rounds in PARTS:
        command = [sys.executable, str(Path(__file__).with_name(script)), *words]
        if rounds:
            command += ["--rounds", str(given.rounds)]
        if script not in ("report.py", "operations.py", "attribute_zero_shot.py"):
            command += ["--threads", str(given.threads)]
        print(" ".join(command[1:]), flush=True)
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
