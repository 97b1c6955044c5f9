"""Training from a JSONL file larger than memory: the most memory it takes beyond the model.

    python benchmarks/streaming.py [--gigabytes 0.5] [--tasks text-generation ...] [--steps 20] [--folder DIRECTORY]

Rows of about 1,000 characters are made of 2,000 invented words. A run reads all of them, holds a part out, tokenises,
and trains a tiny Llama for a few steps of one shuffled epoch; then it scores, and writes its folder. What counts is
the anonymous memory of its process (RssAnon, which excludes what is mapped from files and can be given back), sampled
from outside; that of the same run on 1 MB, program and model, is taken off. Results stand in results/streaming.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

PATH = common.RESULTS / "streaming.json"
WORDS = 2000
TASKS = ("text-generation", "text-classification", "instruction-tuning")


def words() -> list[str]:
    """Return invented words of three to nine letters."""
    draw = random.Random(0)
    found: set[str] = set()
    while len(found) < WORDS:
        found.add("".join(draw.choice("aeioubcdfghklmnprstvz") for _ in range(draw.randint(3, 9))))
    return sorted(found)


def write_rows(path: Path, size: int, task: str) -> int:
    """Write rows until the file has so many bytes; return their number."""
    draw, known, written, rows = random.Random(1), words(), 0, 0
    with open(path, "w", encoding="utf-8") as file:
        while written < size:
            text = " ".join(draw.choices(known, k=140))
            row = {"text": text}
            if task == "text-classification":
                row["label"] = known[rows % 20]
            elif task == "instruction-tuning":
                row = {"prompt": text, "completion": " ".join(draw.choices(known, k=20))}
            written += file.write(json.dumps(row) + "\n")
            rows += 1
    return rows


def make_model(folder: Path) -> None:
    """Save a random Llama of two layers whose tokens are the words."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = ["<s>", "</s>", "<unk>", *words()]
    tokenizer = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", model_max_length=256
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(names), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=48, max_position_embeddings=256, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


def recipe(work: dict[str, Any], rows: int, folder: Path) -> dict[str, Any]:
    """Return one run's recipe; about 100 rows are held out."""
    generates = work["task"] != "text-classification"
    task = {"name": work["task"], **({"samples": 0} if generates else {})}
    if work["task"] == "instruction-tuning":
        task["answered_rows"] = 0
    return {
        "task": task,
        "model": str(folder / "model"),
        "data": {"train": str(folder / "rows.jsonl"), "validation": min(0.1, 100 / rows)},
        **({"prompt": {"chat": "plain"}} if work["task"] == "instruction-tuning" else {}),
        "training": {"epochs": 1, "max_steps": work["steps"], "batch_size": 16},
        "evaluation": {"resamples": 100, **({} if generates else {"baselines": False})},
        "output": str(folder / "run"),
    }


def worker(work: dict[str, Any]) -> None:
    """Train one recipe."""
    from tunesmith.api import train

    train(json.loads(Path(work["recipe"]).read_text()))


def peak(pid: int, running: subprocess.Popen[bytes]) -> tuple[int, list[list[float]]]:
    """Sample a process's anonymous memory until it ends; return the most, and its course. [bytes], [s, MB]"""
    most, began, course = 0, time.perf_counter(), list[list[float]]()
    while running.poll() is None:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            break
        now = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)
        seconds = time.perf_counter() - began
        if not course or seconds > course[-1][0] + 5:
            course.append([round(seconds, 1), round(now / 1e6, 1)])
        most = max(most, now)
        time.sleep(0.02)
    return most, course


def measured(work: dict[str, Any], size: int, place: str | None) -> dict[str, Any]:
    """Carry out one run on so many bytes."""
    with tempfile.TemporaryDirectory(dir=place) as scratch:
        folder = Path(scratch)
        make_model(folder / "model")
        rows = write_rows(folder / "rows.jsonl", size, work["task"])
        path = folder / "recipe.json"
        path.write_text(json.dumps(recipe(work, rows, folder)))
        environment = {**os.environ, "TMPDIR": scratch, "TUNESMITH_CACHE": str(folder / "cache")}
        command = [sys.executable, __file__, "--worker", json.dumps({"recipe": str(path)})]
        with open(folder / "said", "wb") as said:
            running = subprocess.Popen(command, stdout=said, stderr=said, env=environment)
            most, course = peak(running.pid, running)
        if running.wait():
            sys.exit((folder / "said").read_text()[-3000:])
        done = json.loads((folder / "run" / "metrics.json").read_text())
        return {"bytes": (folder / "rows.jsonl").stat().st_size, "rows": rows, "peak_anonymous_bytes": most,
                "seconds": round(done["seconds"], 1), "steps": done["steps"], "course": course}  # fmt: skip


def main() -> None:
    """Measure every task and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=0.5)
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=["text-generation"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--folder", help="where the file is written, three times its size; the temporary folder else")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(json.loads(given.worker))
        return
    found = []
    for task in given.tasks:
        work = {"task": task, "steps": given.steps}
        small = measured(work, 10**6, given.folder)
        large = measured(work, int(given.gigabytes * 1e9), given.folder)
        beyond = large["peak_anonymous_bytes"] - small["peak_anonymous_bytes"]
        found.append({"task": task, "small": small, "large": large, "beyond_bytes": beyond,
                      "beyond_bytes_per_row": round(beyond / large["rows"], 1)})  # fmt: skip
        held = small["peak_anonymous_bytes"] / 1e6
        print(f"{task}: {large['bytes'] / 1e9:.2f} GB, {large['rows']:,} rows: {beyond / 1e6:,.0f} MB beyond program "
              f"and model ({held:,.0f} MB), {beyond / large['rows']:.0f} bytes per row")  # fmt: skip
    PATH.write_text(json.dumps({"machine": common.machine(1), "runs": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
