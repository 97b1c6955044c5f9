"""What the benchmarks share: data, models, a child process per measurement, and results with the machine's facts."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
LENGTH = 128  # tokens per row of the language modelling text


def place(variable: str) -> Path:
    """Return the folder that an environment variable names."""
    found = os.environ.get(variable)
    if not found:
        sys.exit(f"set {variable}: the folder with the benchmarks' {variable.rpartition('_')[2].lower()}")
    return Path(found)


def machine(threads: int) -> dict[str, Any]:
    """Return where numbers were measured."""
    import torch

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "system": platform.platform(),
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "instructions": torch.backends.cpu.get_cpu_capability(),  # the widest that torch uses here
        "torch": torch.__version__,
        **({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
    }


def child(script: str, work: dict[str, Any], threads: int) -> dict[str, Any]:
    """Do one piece of work in a process of its own; its last line is the answer."""
    count = str(threads)
    environment = {**os.environ, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, script, "worker", json.dumps(work)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if result.returncode:
        sys.exit(f"{work}\n{result.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def begin(work: Callable[[dict[str, Any]], Any], main: Callable[[], None]) -> None:
    """Start a script: do the work that `child` asks this process for, or what the user asks."""
    if sys.argv[1:2] == ["worker"]:
        print(json.dumps(work(json.loads(sys.argv[2]))))
    else:
        main()


def parser(text: str | None) -> argparse.ArgumentParser:
    """Make the reader of a script's command line; its text is shown as it stands."""
    return argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)


def medians(runs: Iterable[dict[str, Any]], keys: Iterable[str]) -> dict[str, float]:
    """Return the median of some numbers over runs."""
    runs = list(runs)
    return {key: statistics.median(run[key] for run in runs) for key in keys}


Worker = Callable[[dict[str, Any]], dict[str, Any] | None]


def in_turn(
    script: str,
    works: dict[str, dict[str, Any]],
    keys: dict[str, str],
    given: argparse.Namespace,
    case: str = "",
    inside: Worker | None = None,
) -> dict[str, Any]:
    """Do the sides' work in turn (A B A B), each in a process of its own, several rounds.

    Args:
        script: that does it.
        works: of each side; the baseline that others are compared with stands last.
        keys: numbers of its answer to sum up, with their units; the first is the speed.
        given: rounds and threads.
        case: said with every line.
        inside: does it in this process, for work on a GPU, whose memory is counted there; but for works that are to
            run "apart", because they change the libraries that they use.
    Returns:
        Every run, and the median, lowest and highest of each number.
    """
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in works}
    for turn in range(given.rounds):
        for side, work in works.items():
            here = inside is not None and not work.get("apart")
            found = emptied(inside, work) if here else child(script, work, given.threads)
            if found is None:
                print(f"{case} round {turn + 1} {side}: out of memory", flush=True)
                continue
            runs[side].append(found)
            shown = ", ".join(f"{shortened(found[key], unit)} {unit}" for key, unit in keys.items())
            print(f"{case} round {turn + 1} {side}: {shown}", flush=True)
    ranges = {
        side: {key: [min(run[key] for run in own), max(run[key] for run in own)] for key in keys}
        for side, own in runs.items()
        if own
    }
    middle = {side: medians(own, keys) for side, own in runs.items() if own}
    return {"keys": keys, "medians": middle, "ranges": ranges, "runs": runs, "machine": machine(given.threads)}


def emptied(do: Worker, work: dict[str, Any]) -> dict[str, Any] | None:
    """Do a piece of work in this process and free what it left on the GPU; None where its memory was too small."""
    import gc

    import torch

    try:
        found = do(work)
    except torch.OutOfMemoryError:
        found = None
    gc.collect()
    torch.cuda.empty_cache()
    return found


def shortened(value: float, unit: str) -> str:
    """Word a number; bytes as the megabytes that their unit says."""
    return f"{value / 1e6:,.0f}" if unit == "MB" else f"{value:,.4g}"


def turns(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add what every comparison asks: how many rounds and threads."""
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    return parser


def peak(work: dict[str, Any]) -> Callable[[], int]:
    """Begin a new peak of memory; the answer gives it: of the process, or of what is allocated on a GPU. [bytes]"""
    import torch

    from tunesmith.core.memory import peak_bytes, restart_peak

    if work.get("device") == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated
    restart_peak()
    return peak_bytes


def keep(name: str, case: str, found: dict[str, Any]) -> None:
    """Write a case's comparison beside the others of its file."""
    (RESULTS / f"{name}.json").write_text(json.dumps({**kept(name), case: found}, indent=1) + "\n")


def kept(name: str) -> dict[str, Any]:
    """Read the cases of a file of results; none where there is no file."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


# Rows ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """Token rows and their labels, as training reads them."""

    tokens: Any
    labels: Any
    soft: None = None
    weights: None = None

    def taught(self, row: int, shares: Sequence[tuple[int, float]] = ()) -> int:
        """Return a row's class; no row here is made of others."""
        return int(self.labels[row])

    def first(self, count: int) -> Split:
        """Return the first rows."""
        from tunesmith.data.tokens import TokenRows

        rows, full = self.tokens, self.tokens.full_lengths[:count]
        return Split(TokenRows(rows.ids[: rows.ends[count]], rows.ends[: count + 1], full), self.labels[:count])


def banking(part: str) -> tuple[list[str], list[str]]:
    """Return texts and labels of a part of the few-shot BANKING77: train_10, valid or test."""
    folder = place("TUNESMITH_DATA") / "few_shot_intent" / "BANKING77" / part
    texts, labels = ((folder / name).read_text(encoding="utf-8").splitlines() for name in ("seq.in", "label"))
    order = list(range(len(texts)))
    if part != "test":
        random.Random(0).shuffle(order)
    return [texts[i].strip() for i in order], [labels[i].strip() for i in order]


def encoded(part: str, tokenizer: Any, count: int | None = None, per_label: int | None = None) -> Split:
    """Return rows of a part as token ids."""
    import numpy as np

    from tunesmith.data.tokens import tokenize

    texts, labels = banking(part)
    names, seen, kept = sorted(set(labels)), dict.fromkeys(labels, 0), []
    for number, label in enumerate(labels):
        seen[label] += 1
        if per_label is None or seen[label] <= per_label:
            kept.append(number)
    kept = kept[:count]
    rows = tokenize(tokenizer, [texts[i] for i in kept], 256)
    return Split(rows, np.array([names.index(labels[i]) for i in kept]))


def prose() -> tuple[Any, Any]:
    """Return tinyshakespeare in rows of LENGTH tokens: those to train on, and the last tenth of the text."""
    import torch

    from tunesmith.models.loading import load_tokenizer, locate

    text = (place("TUNESMITH_DATA") / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")
    tokenizer = load_tokenizer(locate(str(stories())))
    cut = len(text) * 9 // 10
    parts = []
    for piece in (text[:cut], text[cut:]):
        ids = torch.tensor(tokenizer(piece, add_special_tokens=False)["input_ids"])
        parts.append(ids[: len(ids) // LENGTH * LENGTH].view(-1, LENGTH))
    return parts[0], parts[1]


def prose_batch(train: Any, step: int, rows: int, seed: int) -> Any:
    """Return the rows of a step, the same for everyone with that seed, (rows, LENGTH)."""
    import torch

    draw = torch.Generator().manual_seed(1_000_003 * seed + step)
    return train[torch.randint(len(train), (rows,), generator=draw)]


def stories() -> Path:
    """Return the folder of the small Llama."""
    return place("TUNESMITH_MODELS") / "stories260K"


# Training ours as a library -----------------------------------------------------------------------------------


def backbone(name: str, dtype: str = "float32") -> tuple[Any, Any]:
    """Return an opened model and its tokenizer."""
    import torch

    from tunesmith.models.backbone import Backbone
    from tunesmith.models.loading import load_model, load_tokenizer, locate

    source = locate(name)
    tokenizer = load_tokenizer(source)
    core = Backbone(load_model(source, torch.device("cpu"), getattr(torch, dtype)))
    core.seams.tokenizer = tokenizer
    return core, tokenizer


def classifier(core: Any, split: Split, method: Any, name: str, settings: dict[str, Any], pooling: str = "mean") -> Any:
    """Attach a delta with a random linear head; the trial trains one epoch over the split, without validation."""
    from tunesmith.core.seeds import derived, seed_everything
    from tunesmith.recipe.schema import TrainingSettings
    from tunesmith.tasks.text_classification import TextClassification
    from tunesmith.tasks.tuned import Tuned
    from tunesmith.training.trial import Trial

    seed_everything(derived(0, "weights"))
    task = TextClassification(head_kind="linear", head_start="random", pooling=pooling).prepare(core.model, {})
    head = task.head(core.width, 77).to(next(core.model.parameters()).dtype)
    tuned = Tuned(core, task, head, method.attach(core.seams, name))
    training = TrainingSettings(**{"epochs": 1, "best": "last", **settings})
    return Trial(tuned, split, training, 0, lambda: {"validation loss": 0.0}, ("last", False), method)


def fit(trials: list[Any]) -> None:
    """Train trials in one pass."""
    from tunesmith.training.loop import Loop

    Loop(trials).fit(lambda *_: None)


@dataclass
class Writer:
    """One delta of the language model in training."""

    method: Any
    delta: Any
    optimizer: Any
    losses: list[float]


def writer(core: Any, method: Any, name: str, rate: float, steps: int, seed: int = 0) -> Writer:
    """Attach a delta for language modelling."""
    from tunesmith.core.seeds import derived, seed_everything
    from tunesmith.recipe.schema import TrainingSettings
    from tunesmith.training.optimizing import Optimizer
    from tunesmith.training.part_rates import delta_parts

    seed_everything(derived(seed, "weights"))
    delta = method.attach(core.seams, name)
    optimizer = Optimizer(delta_parts(method, delta, rate), TrainingSettings(), total=steps)
    delta.train(True)
    return Writer(method, delta, optimizer, [])


def next_token_losses(core: Any, rows: Any, names: list[str]) -> list[Any]:
    """Send the same rows through every named delta at once; return each one's nats per row, (rows,)."""
    import torch

    from tunesmith.models.layout import ragged

    if len(names) == 1:
        core.seams.use(names[0])
    wanted = [name for name in names for _ in rows] if len(names) > 1 else None
    batch = ragged([row for _ in names for row in rows], names=wanted).to(core.device)
    hidden = core.hidden(batch).view(len(names), len(rows), rows.shape[1], -1)
    table = core.model.get_input_embeddings().weight  # the output map is tied to it
    labels = rows[:, 1:].flatten().to(core.device)
    found = []
    for own in hidden:  # one delta's logits at a time: they stay in the processor's cache
        logits = own[:, :-1].flatten(0, 1) @ table.t()
        nats = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        found.append(nats.view(len(rows), -1).mean(-1))
    return found


def write_steps(core: Any, writers: list[Writer], steps: int, rows_of: Callable[[int], Any]) -> None:
    """Train deltas of the language model in one pass, each with its own optimizer."""
    names = [one.delta.name for one in writers]
    core.model.train(True)
    for step in range(steps):
        total = 0.0
        for one, nats in zip(writers, next_token_losses(core, rows_of(step), names), strict=True):
            loss, penalty = nats.mean(), one.method.penalty(one.delta)
            one.losses.append(loss.item())
            total = total + loss if penalty is None else total + loss + penalty
        total.backward()  # type: ignore[attr-defined]
        for one in writers:
            one.optimizer.step()
            one.method.adjust(one.delta, step + 1, steps)
            one.optimizer.clear()


def repeated(split: Split, count: int) -> Split:
    """Return so many rows of a split, drawn in a fixed order."""
    import numpy as np

    from tunesmith.data.tokens import TokenRows

    numbers = np.random.default_rng(0).integers(0, len(split.tokens), count)
    rows = [split.tokens[int(number)] for number in numbers]
    ends = np.cumsum([0, *(len(row) for row in rows)])
    tokens = TokenRows(np.concatenate(rows).astype(np.int32), ends, np.diff(ends))
    return replace(split, tokens=tokens, labels=split.labels[numbers])
