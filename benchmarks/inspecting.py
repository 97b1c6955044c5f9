"""Inspecting a file of many rows: how long does it take, and how much memory?

    TUNESMITH_DATA=... python benchmarks/inspecting.py [--rows 1000000] [--threads 1]

A CSV file is written: every text is six runs of three words each from BANKING77's training questions, about 100
characters, with the label of one of these questions. One row in a hundred is a copy of the row before it, and one in a
hundred a near copy that lacks the last word. A long last word makes less than 0.9 of the character trigrams the same,
so every planted pair is compared by itself: those at least as alike are what can be found. `tunesmith.inspect_data`
looks through the file in a process of its own. Seconds are of the inspection alone; processor seconds stand beside
them, so that other work on the machine can be told; memory is the most that the process held, beside it what the
program alone took before. Results go to
benchmarks/results/inspecting.json.
"""

from __future__ import annotations

import csv
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import banking77
import common
from tunesmith.data.near import normal

RUN, RUNS = 3, 6  # words of a run, and runs of a text
EVERY = 100  # rows of which one is a copy, and one a near copy
NEAR = 0.9  # least similarity of near copies, as `inspect_data` has it


def alike(left: str, right: str) -> float:
    """Return the Jaccard similarity of two texts' sets of character trigrams."""
    one, other = ({text[at : at + 3] for at in range(len(text) - 2)} for text in map(normal, (left, right)))
    return len(one & other) / len(one | other)


def write_rows(path: Path, count: int) -> dict[str, int]:
    """Write the rows, the same for the same count; return how many are in a planted pair, and in one that is near."""
    runs = []
    for text, label in banking77.rows("train"):
        words = text.split()
        runs += [(" ".join(words[at : at + RUN]), label) for at in range(len(words) - RUN + 1)]
    draw, text, label, planted, near = random.Random(0), "", "", 0, 0
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for row in range(count):
            if row % EVERY == 2:
                before, text = text, text.rpartition(" ")[0]
                planted, near = planted + 2, near + 2 * (alike(before, text) >= NEAR)
            elif row % EVERY != 1:
                some = draw.choices(runs, k=RUNS)
                text, label = " ".join(words for words, _ in some), some[0][1]
            writer.writerow([text, label])
    return {"planted": planted, "planted_near": near}


def worker(work: dict[str, Any]) -> dict[str, Any]:
    """Inspect one file."""
    from tunesmith.api import inspect_data
    from tunesmith.core.memory import peak_bytes, resident_bytes

    program = resident_bytes()
    began, own = time.perf_counter(), time.process_time()
    found = inspect_data(work["file"])["files"][0]
    return {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - own,
        "peak_bytes": peak_bytes(),
        "program_bytes": program,
        "rows": found["rows"],
        "characters": found["characters"],
        "duplicates": found["duplicates"],
        "near_duplicates": found["near_duplicates"],
    }


def main() -> None:
    """Measure what the command line asks for."""
    parser = common.parser(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        planted = write_rows(path, given.rows)
        size = path.stat().st_size
        found = common.child(__file__, {"file": str(path)}, given.threads)
    near = found["near_duplicates"]
    print(
        f"{found['rows']:,} rows, {size / 1e6:,.0f} MB: {found['seconds']:.1f} s, {found['cpu_seconds']:.1f} s of "
        f"processor time, {found['peak_bytes'] / 1e6:,.0f} MB at most, {found['program_bytes'] / 1e6:,.0f} of them the "
        f"program; {found['duplicates']:,} copies; {near['rows']:,} rows found in near copies"
        f"{'' if near['complete'] else ' at least'}, of {planted['planted_near']:,} that are "
        f"({planted['planted']:,} planted)"
    )
    common.keep(
        "inspecting",
        f"{given.rows} rows",
        {**found, **planted, "bytes": size, "machine": common.machine(given.threads)},
    )


if __name__ == "__main__":
    common.begin(worker, main)
