"""Digits that were never seen, told by their attributes: by rules, by models that predict them, by clusters.

    TUNESMITH_DATA=... python benchmarks/attribute_zero_shot.py [--taught 300] [--tested 100]

MNIST. The table of 15 attributes (tables/digits.csv) and the rules (tables/digits_rules.yaml) were written by hand,
with training images of all digits in view; ways and their settings were chosen on training images too. In each of
seven splits three digits are unseen: no image of them is learned from. Shares are over test images: of unseen digits
among the three (chance 1/3), and of all images among all ten digits (seen, unseen, harmonic mean). Intervals: 95 %,
Wilson's of shares, by 1000 bootstrap resamples of the harmonic mean. Results go to
benchmarks/results/attribute_zero_shot.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import common

SPLITS = ["012", "345", "678", "039", "147", "258", "169"]
TABLES = Path(__file__).with_name("tables")
SIZE, STEP = 9, 4  # of the parts that are clustered, and from one to the next [pixels]


def images(part: str, per_digit: int) -> tuple[Any, list[str]]:
    """Return so many images of each digit."""
    import numpy as np

    found = np.load(common.place("TUNESMITH_DATA") / "mnist" / "mnist.npz")
    pixels, digits = found[f"x_{part}"], found[f"y_{part}"]
    draw = np.random.default_rng(0)
    rows = np.concatenate([draw.permutation(np.flatnonzero(digits == digit))[:per_digit] for digit in range(10)])
    return pixels[rows], [str(digits[row]) for row in rows]


def parts(pixels: Any) -> Any:
    """Cut images into overlapping squares, each with its place."""
    import numpy as np

    squares = np.lib.stride_tricks.sliding_window_view(pixels / 255.0, (SIZE, SIZE), axis=(1, 2))[:, ::STEP, ::STEP]
    rows, down, across = squares.shape[:3]
    y, x = np.mgrid[:down, :across]
    places = 6.0 * np.stack([y.ravel() / (down - 1), x.ravel() / (across - 1)], axis=1)
    flat = squares.reshape(rows, down * across, SIZE * SIZE)
    return np.concatenate([flat, np.broadcast_to(places, (rows, down * across, 2))], axis=2)


def main() -> None:
    import yaml

    from tunesmith.fewshot.attribute_table import read_table
    from tunesmith.fewshot.attributes.clusters import Clusters
    from tunesmith.fewshot.attributes.model import Model
    from tunesmith.fewshot.attributes.rules import Rules
    from tunesmith.fewshot.unseen import measure_unseen

    parser = common.parser(__doc__)
    parser.add_argument("--taught", type=int, default=300, help="training images per digit")
    parser.add_argument("--tested", type=int, default=100, help="test images per digit")
    given = parser.parse_args()
    table = read_table(TABLES / "digits.csv")
    rules = Rules(rules=yaml.safe_load((TABLES / "digits_rules.yaml").read_text()))
    rules.check(table.attributes)
    data = {"train": images("train", given.taught), "test": images("test", given.tested)}
    forms: dict[str, dict[str, Any]] = {}
    for part, (pixels, _) in data.items():
        forms[part] = {
            "pixels": pixels.reshape(len(pixels), -1) / 255.0,
            "measurements": rules.measurements.measure(pixels),
            "parts": parts(pixels),
        }
    ways = {
        "rules": (rules, "measurements"),
        "model, linear on measurements": (Model(), "measurements"),
        "model, network on measurements": (Model(kind="network"), "measurements"),
        "model, bilinear on measurements": (Model(kind="bilinear"), "measurements"),
        "model, bilinear on pixels": (Model(kind="bilinear"), "pixels"),
        "clusters, 200 found": (Clusters(clusters=200), "parts"),
    }
    found: dict[str, Any] = {}
    for name, (way, form) in ways.items():
        found[name] = {}
        for split in SPLITS:
            taught, tested = ((forms[part][form], data[part][1]) for part in ("train", "test"))
            one = measure_unseen(way, table, list(split), taught, tested).plain()
            found[name][split] = one
            print(f"{name}, unseen {split}: {one['zero_shot']['value']:.3f} "
                  f"({one['zero_shot']['low']:.3f} to {one['zero_shot']['high']:.3f}), "
                  f"harmonic {one['harmonic']['value']:.3f}", flush=True)  # fmt: skip
    result = {"ways": found, "taught": given.taught, "tested": given.tested, "machine": common.machine(1)}
    path = common.RESULTS / "attribute_zero_shot.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
