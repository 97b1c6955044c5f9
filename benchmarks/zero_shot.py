"""Zero-shot intents on BANKING77: label names alone, and with a sentence about each label. Nothing is trained.

    TUNESMITH_DATA=... python benchmarks/zero_shot.py

MiniLM; the test split is read once, by both. The sentences are in benchmarks/descriptions/banking77.yaml, in our own
words. A label's vector is the mean direction of its name and its sentence. The gain has a paired bootstrap interval
over the test rows. CLINC150 with label names stands beside it. Results go to benchmarks/results/zero_shot.json.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import common
from few_shot_intent import rows, write

DESCRIPTIONS = Path(__file__).resolve().parent / "descriptions" / "banking77.yaml"


def predictions(dataset: str, folder: Path, described: bool) -> Any:
    """Return what the baseline zero-shot says of the test rows."""
    from tunesmith.evaluation.predictions import Predictions
    from tunesmith.recipe.loading import load_recipe
    from tunesmith.runs.comparing import embed, label_features
    from tunesmith.runs.opening import open_family

    data: dict[str, Any] = {
        "train": write(folder / "train.csv", rows(dataset, "train_5")),  # for the labels' names; no row is looked at
        "validation": None,
        "test": write(folder / "test.csv", rows(dataset, "test")),
    }
    if described:
        data["label_descriptions"] = str(DESCRIPTIONS)
    family = open_family(load_recipe({"data": data, "model": {"name": "minilm", "device": "cpu"}}), None)
    split = family.corpus.splits["test"]
    features = embed(family.session, [split.text(row) for row in range(len(split.labels))])
    return Predictions(features @ label_features(family.session, family.corpus).T, split.labels)


def main() -> None:
    common.parser(__doc__).parse_args()
    from tunesmith.evaluation.statistics import Bootstrap, estimate, metrics_by_name, paired_difference

    metrics, found = metrics_by_name(["accuracy"]), {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, dataset, described in (
            ("BANKING77, label names", "BANKING77", False),
            ("BANKING77, names and descriptions", "BANKING77", True),
            ("CLINC150, label names", "CLINC150", False),
        ):
            found[name] = predictions(dataset, Path(scratch), described)
    results: dict[str, Any] = {}
    for name, answers in found.items():
        results[name] = estimate(answers, metrics, Bootstrap())["accuracy"].plain()
        value, low, high = (100 * results[name][key] for key in ("value", "low", "high"))
        print(f"{name:36} {value:.2f} % ({low:.2f} to {high:.2f})")
    described, named = found["BANKING77, names and descriptions"], found["BANKING77, label names"]
    gain = paired_difference(described, named, metrics[0], Bootstrap())
    results["gain of descriptions"] = {**gain.estimate.plain(), "p_value": gain.p_value}
    print(f"{'gain of descriptions':36} {100 * gain.estimate.value:+.2f} points "
          f"({100 * gain.estimate.low:+.2f} to {100 * gain.estimate.high:+.2f}, p = {gain.p_value:.3f})")  # fmt: skip
    common.keep("zero_shot", "MiniLM", {"accuracy": results, "machine": common.machine(1)})


if __name__ == "__main__":
    main()
