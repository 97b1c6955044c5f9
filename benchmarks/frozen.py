"""The task's head trained on kept features, as the method head-only does: what label_noise.py and imbalance.py share.

MiniLM's features of BANKING77 are computed once and kept (TUNESMITH_CACHE); then a way to train takes seconds. Heads,
losses, weights, sampling, synthetic rows and optimizer are the product's own.
"""

from __future__ import annotations

import random
import statistics
from typing import Any

import numpy as np

import banking77
from tunesmith.core.files import cache_folder

Table = dict[str, np.ndarray]


def features() -> Table:
    """Compute MiniLM's features of both published files, or read what an earlier run kept."""
    path = cache_folder("benchmarks") / "banking77-minilm.npz"
    if not path.is_file():
        from tunesmith.data.tokens import tokenize
        from tunesmith.recipe.loading import load_recipe
        from tunesmith.runs.session import open_session
        from tunesmith.tasks.running import extract_features

        session = open_session(load_recipe({"model": "minilm", "data": {"train": "-"}}))
        found = {}
        for part in ("train", "test"):
            rows = tokenize(session.tokenizer, [text for text, _ in banking77.rows(part)], session.max_tokens)
            found[part] = extract_features(session.backbone, session.task, rows).numpy()
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **found)
    return dict(np.load(path))


def answers(rows: np.ndarray, labels: np.ndarray, test: np.ndarray, names: list[str], way: dict[str, Any]) -> Any:
    """Train the head on features, (rows, D), and return probabilities of the test rows, (rows, C).

    The last epoch counts, so nothing is chosen. `way` holds task, training, weights of rows, and the seed.
    """
    import torch

    from tunesmith.core.seeds import derived, seed_everything
    from tunesmith.models.layout import Layout, RaggedBatch
    from tunesmith.recipe.schema import TrainingSettings
    from tunesmith.tasks.running import probabilities
    from tunesmith.tasks.text_classification import TextClassification
    from tunesmith.training.balancing import classes_of
    from tunesmith.training.optimizing import Optimizer
    from tunesmith.training.sampling import epoch_steps, rows_of_epoch
    from tunesmith.training.synthesizing import Synthesizing

    settings = TrainingSettings(**{"epochs": 10, "learning_rate": 1e-2, **way.get("training", {})})
    task, seed, weights = TextClassification(**way.get("task", {})), way["seed"], way.get("weights")
    seed_everything(derived(seed, "weights"))
    head = task.head(rows.shape[1], len(names))
    head.known_classes = classes_of(labels, names, settings, weights)  # type: ignore[assignment]
    inputs = torch.from_numpy(rows)
    task.start(head, inputs, torch.from_numpy(labels))
    steps = -(-rows_of_epoch(labels, settings.balance) // settings.batch_size) * settings.epochs
    optimizer = Optimizer([(list(head.parameters()), settings.learning_rate)], settings, steps)
    synthesizing = Synthesizing(settings.synthetic, labels, derived(seed, "synthetic"))
    order, done = torch.Generator().manual_seed(derived(seed, "order")), 0
    head.train()
    for _ in range(settings.epochs):
        for numbers in epoch_steps(len(rows), labels, settings, order):
            index = torch.tensor(numbers)
            own = None if weights is None else torch.from_numpy(weights)[index]
            batch = RaggedBatch(index, Layout((1,) * len(numbers)), index, torch.from_numpy(labels)[index], weights=own)
            outputs, batch = synthesizing.made(inputs[index], batch, len(names), done)
            loss = task.loss_of(None, head, None, outputs, batch, settings.label_smoothing)  # type: ignore[arg-type]
            loss.backward()
            optimizer.step()
            optimizer.clear()
            done += 1
    return probabilities(head, torch.from_numpy(test)).numpy()


def scores(chances: Any, right: np.ndarray, metrics: list[str]) -> dict[str, dict[str, float]]:
    """Score answers with bootstrap intervals."""
    from tunesmith.evaluation.predictions import Predictions
    from tunesmith.evaluation.statistics import Bootstrap, estimate, metrics_by_name

    found = estimate(Predictions(chances, right), metrics_by_name(metrics), Bootstrap(500))
    return {name: one.plain() for name, one in found.items()}


def summed_up(runs: dict[str, list[dict[str, Any]]], metric: str) -> dict[str, Any]:
    """Mean over seeds with its 95 % interval by the t distribution, and the mean of the seeds' own intervals."""
    from scipy.stats import t

    found = {}
    for way, own in runs.items():
        values = [one["scores"][metric]["value"] for one in own]
        mean, half = statistics.mean(values), 0.0
        if len(values) > 1:
            half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
        inside = [[one["scores"][metric][end] for one in own] for end in ("low", "high")]
        found[way] = {"mean": mean, "low": mean - half, "high": mean + half,
                      "of one seed": [statistics.mean(ends) for ends in inside]}  # fmt: skip
    return found


def shown(found: dict[str, dict[str, Any]], metric: str) -> str:
    """Draw the table as text."""
    lines = [f"{'way':34} {metric}, mean and 95 % over seeds; of one seed by its test rows"]
    for way, one in found.items():
        low, high = one["of one seed"]
        lines.append(
            f"{way:34} {100 * one['mean']:6.2f} ({100 * one['low']:.2f} to {100 * one['high']:.2f}); "
            f"{100 * low:.2f} to {100 * high:.2f}"
        )
    return "\n".join(lines)


def imbalanced(codes: np.ndarray, ratio: float, seed: int, most: int) -> np.ndarray:
    """Choose training rows whose classes fall from `most` rows by a constant factor to most / ratio; (rows,)."""
    draw = random.Random(seed)
    classes = sorted(set(codes[codes >= 0].tolist()))
    sizes = [round(most * ratio ** -(place / max(1, len(classes) - 1))) for place in range(len(classes))]
    left, chosen = draw.sample(classes, len(classes)), []
    for size in sizes:  # the first of the drawn classes that has so many rows
        code = next(one for one in left if (codes == one).sum() >= size)
        left.remove(code)
        chosen += draw.sample(np.flatnonzero(codes == code).tolist(), size)
    return np.array(chosen)
