"""Executed floating-point operations over the least that an exact training step needs, ours and the peers'.

    TUNESMITH_DATA=... python benchmarks/operations.py [--no-peers]

Operations of matrix products and attention are counted while a side trains, whatever they cost in time: the same
numbers on every machine. The least counts, for LoRA on every linear map of the blocks:

* two operations per number of a frozen map and token forward, two backward into its input; none backward into what
  comes before the first delta, none in the last block behind attention for tokens that nobody reads;
* 6 r (in + out) per token for a LoRA of rank r on a map;
* attention over the pairs of tokens that see each other, 12 per pair and width; a prompt that the rows of a step have
  in common once;
* the head at the labelled positions.

Results go to benchmarks/results/operations.json; with `--no-peers` the peers' counts there, which do not change with
our code, stay.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import instruction_tuning
import method_sides

ENCODER_RATE, RANK, STEPS = 3e-4, 8, 4


# The least ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """A model's blocks.

    Args:
        blocks: how many.
        width: D.
        inner: of the feed-forward layer.
        gated: whether that has three maps instead of two.
        causal: whether tokens see only what stands before them.
    """

    blocks: int
    width: int
    inner: int
    gated: bool
    causal: bool

    @property
    def behind(self) -> list[tuple[int, int]]:
        """The maps of a block behind attention, in and out."""
        up = [(self.width, self.inner)] * (2 if self.gated else 1)
        return [(self.width, self.width), *up, (self.inner, self.width)]


@dataclass(frozen=True)
class Tokens:
    """What a training run sends through a model.

    Args:
        sent: tokens.
        read: of them, those whose last states are read.
        pairs: of a token and one that it sees.
        read_pairs: of them, those of tokens that are read.
    """

    sent: int
    read: int
    pairs: int
    read_pairs: int

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.sent + other.sent, self.read + other.read, self.pairs + other.pairs,
                      self.read_pairs + other.read_pairs)  # fmt: skip


def maps(sizes: Iterable[tuple[int, int]], backward: bool = True) -> int:
    """Return what frozen maps with LoRA cost per token."""
    total = 0
    for before, after in sizes:
        total += (4 if backward else 2) * before * after
        total += RANK * (6 * (before + after) - (0 if backward else 2 * before))
    return total


def least(shape: Shape, tokens: Tokens, head: int) -> int:
    """Return the operations of the blocks and of a head that costs so many."""
    square = [(shape.width, shape.width)]
    first = tokens.sent * (maps(square * 3, backward=False) + maps(shape.behind)) + 12 * shape.width * tokens.pairs
    middle = tokens.sent * (maps(square * 3) + maps(shape.behind)) + 12 * shape.width * tokens.pairs
    last = tokens.sent * maps(square * 2) + tokens.read * (maps(square) + maps(shape.behind))
    last += 12 * shape.width * tokens.read_pairs
    return first + (shape.blocks - 2) * middle + last + head


def causal_step(rows: list[tuple[int, list[bool]]], same: int) -> Tokens:
    """Count a step of causal rows, each its length and marks, that begin with so many tokens in common."""
    own = [(length, [place for place, mark in enumerate(marks) if mark]) for length, marks in rows]
    pairs = sum(length * (length + 1) // 2 for length, _ in own) - (len(own) - 1) * (same * (same + 1) // 2)
    read = sum(len(places) for _, places in own)
    return Tokens(sum(length for length, _ in own) - (len(own) - 1) * same, read, pairs,
                  sum(place for _, places in own for place in places))  # fmt: skip


# What is executed ---------------------------------------------------------------------------------------------


def _mapped(x: Any, weight: Any, *rest: Any, **settings: Any) -> int:
    return 2 * math.prod(x) * int(weight[0])


def _added(own: Any, a: Any, b: Any, *rest: Any, **settings: Any) -> int:
    return 2 * math.prod(a) * int(b[-1])


def _seen(query: Any, key: Any, causal: bool) -> int:
    rows, heads, length, width = query
    return int(rows * heads * width * (length * (length + 1) // 2 if causal else length * key[2]))


def _attended(q: Any, k: Any, v: Any, dropout: float = 0.0, causal: bool = False, **settings: Any) -> int:
    return 4 * _seen(q, k, causal)


def _attended_back(grad: Any, q: Any, k: Any, *rest: Any, **settings: Any) -> int:
    return 10 * _seen(q, k, rest[4])  # five products: torch's kernel computes the weights again


def executed(run: Callable[[], Any]) -> int:
    """Count the operations of matrix products and attention in a run."""
    import torch
    from torch.utils import flop_counter

    aten = torch.ops.aten
    counter = flop_counter.FlopCounterMode(display=False, custom_mapping={
        torch.ops.mkldnn._linear_pointwise: _mapped,
        torch.ops.tunesmith.mapped_into: _mapped,
        aten.addmm_: _added,
        aten.baddbmm_: _added,
        aten._scaled_dot_product_flash_attention_for_cpu: _attended,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attended_back,
    })  # fmt: skip
    with counter:
        run()
    return int(counter.get_total_flops())


# Classification of BANKING77 ----------------------------------------------------------------------------------

MINILM = Shape(blocks=6, width=384, inner=1536, gated=False, causal=False)
ROWS = 32


def classifying(peers: bool) -> dict[str, Any]:
    """Count ours, PEFT's in a plain loop with padded batches where wanted, and the least, over the same rows."""
    from tunesmith.models.loading import load_tokenizer, locate
    from tunesmith.training.loop import Loop

    work = {"method": "lora", "task": "classification", "rows": ROWS, "steps": STEPS}
    split = common.repeated(common.encoded("train_10", load_tokenizer(locate("minilm"))), STEPS * ROWS)
    core, _ = common.backbone("minilm")
    method = method_sides.ours_method("lora", "classification")
    settings = {"batch_size": ROWS, "learning_rate": ENCODER_RATE}
    trial = common.classifier(core, split, method, "a", settings, pooling="pooler")
    lengths = [int(length) for length in split.tokens.lengths]
    pairs, read = sum(length**2 for length in lengths), len(lengths)
    head = read * (4 * MINILM.width**2 + 6 * MINILM.width * 77)
    sides = {"Tunesmith": executed(lambda: Loop([trial]).fit(lambda *_: None))}
    if peers:
        train, _ = method_sides.theirs(work)
        sides["PEFT, padded batches"] = executed(lambda: train(STEPS))
    return {"least": least(MINILM, Tokens(sum(lengths), read, pairs, sum(lengths)), head), "sides": sides}


# Instruction tuning -------------------------------------------------------------------------------------------

LLAMA = Shape(blocks=8, width=512, inner=1376, gated=True, causal=True)
PEERS = {"TRL at its defaults": "trl defaults", "TRL without recomputation": "trl float32"}


def writing(setting: str, rows: int, batch: int, peers: bool) -> dict[str, Any]:
    """Count ours, TRL's where wanted, and the least, over the same rows."""
    from tunesmith.methods.lora import Lora
    from tunesmith.training.loop import Loop

    with tempfile.TemporaryDirectory() as scratch:
        instruction_tuning.build(Path(scratch), rows, setting)
        work = {"folder": scratch, "batch": batch}
        trial = instruction_tuning.our_trial(work, Lora(rank=RANK, layers=method_sides.WRITER))
        tokens = trial.split.tokens
        found = [(len(tokens[n]), [bool(mark) for mark in tokens.learned(n)]) for n in range(rows)]
        same = common_beginning([tokens[n].tolist() for n in range(rows)]) if setting == "shared" else 0
        steps = [causal_step(found[first : first + batch], same) for first in range(0, rows, batch)]
        together = sum(steps[1:], steps[0])
        sides = {"Tunesmith": executed(lambda: Loop([trial]).fit(lambda *_: None))}
        for name, side in PEERS.items() if peers else ():
            sides[name] = executed(lambda side=side: instruction_tuning.theirs({**work, "side": side}))
    head = 4 * LLAMA.width * instruction_tuning.VOCABULARY * together.read
    return {"least": least(LLAMA, together, head), "sides": sides}


def common_beginning(rows: list[list[int]]) -> int:
    """Count the tokens that all rows begin with."""
    low, high = min(rows), max(rows)
    return next((n for n, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))


CASES: dict[str, Callable[[bool], dict[str, Any]]] = {
    f"BANKING77, MiniLM, {ROWS} rows": classifying,
    "gsm8k, Llama of 30 million numbers, 8 rows": lambda peers: writing("gsm8k", 32, 8, peers),
    "gsm8k with a template of 256 tokens, short answers, 16 rows": lambda peers: writing("shared", 32, 16, peers),
}


def worker(work: dict[str, Any]) -> dict[str, Any]:
    """Count one case."""
    return CASES[work["case"]](work["peers"])


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    given = parser.parse_args()
    for case in CASES:
        found = common.child(__file__, {"case": case, "peers": given.peers}, 2)
        found["sides"] = {**common.kept("operations").get(case, {}).get("sides", {}), **found["sides"]}
        ratios = {side: round(count / found["least"], 3) for side, count in found["sides"].items()}
        print(f"{case}: {ratios}", flush=True)
        common.keep("operations", case, found)


if __name__ == "__main__":
    common.begin(worker, main)
