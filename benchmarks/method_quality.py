"""The score of a method on held-out data, ours and PEFT's: the better learning rate on validation."""

from __future__ import annotations

import csv
import math
import tempfile
from pathlib import Path
from typing import Any

import common
from method_sides import Loop, ours_method, ours_settings, padded, peft_model, sentence_model

ROWS, PER_LABEL = 32, 5  # rows per step; validation rows per label
LANGUAGE_ROWS, HELD = 8, 256  # rows per step; held-out rows, half of them to choose the learning rate


def interval(values: Any) -> dict[str, float]:
    """Return the mean of one number per held-out row, with its bootstrap interval."""
    import numpy as np

    from tunesmith.evaluation.statistics import Bootstrap

    rows, draws = np.asarray(values, dtype=float), Bootstrap()
    means = np.array([weights @ rows / len(rows) for weights in draws.weights(len(rows))])
    low, high = draws.interval(means)
    return {"value": float(rows.mean()), "low": low, "high": high}


# BANKING77 ----------------------------------------------------------------------------------------------------


def _file(folder: Path, part: str, per_label: int | None = None) -> str:
    texts, labels = common.banking(part)
    seen, path = dict.fromkeys(labels, 0), folder / f"{part}.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for text, label in zip(texts, labels, strict=True):
            seen[label] += 1
            if per_label is None or seen[label] <= per_label:
                writer.writerow([text, label])
    return str(path)


def classify_ours(work: dict[str, Any]) -> dict[str, Any]:
    """Run the product: one recipe, a candidate per learning rate, in one pass."""
    import tunesmith

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run = tunesmith.train(
            {
                "data": {"train": _file(folder, "train_10"), "validation": _file(folder, "valid", PER_LABEL),
                         "test": _file(folder, "test")},
                "method": ours_settings(work["method"], "classification"),
                "training": {"epochs": work["epochs"], "batch_size": ROWS},
                "candidates": [{"training.learning_rate": rate} for rate in work["rates"]],
                "evaluation": {"metrics": ["accuracy"], "baselines": False},
                "seed": work["seed"],
                "output": str(folder / "run"),
            }
        )  # fmt: skip
        found = run.summary
        scores = {split: run.metrics[split]["accuracy"] for split in ("validation", "test")}
        (chosen,) = (one for one in found["candidates"] if one["chosen"])
    return {
        "score": scores["test"],
        "validation": scores["validation"]["value"],
        "rate": chosen["training"].get("learning_rate", 1e-3),
        "trainable": chosen.get("trainable_parameters") or found.get("trainable_parameters"),
    }


def classify_theirs(work: dict[str, Any]) -> dict[str, Any]:
    """Train PEFT's version with each rate; the same head, started from the same class means."""
    import copy

    import numpy as np
    import torch

    from tunesmith.core.seeds import derived, seed_everything
    from tunesmith.models.loading import load_tokenizer, locate
    from tunesmith.tasks.heads.cosine import CosineHead
    from tunesmith.tasks.text_classification import TextClassification

    tokenizer = load_tokenizer(locate("minilm"))
    train, test = common.encoded("train_10", tokenizer), common.encoded("test", tokenizer)
    valid = common.encoded("valid", tokenizer, per_label=PER_LABEL)

    @torch.no_grad()
    def run(call: Any, split: common.Split) -> Any:
        order = np.argsort(split.tokens.lengths, kind="stable")
        parts = [call(padded(split, order[start : start + 64])) for start in range(0, len(order), 64)]
        return torch.cat(parts)[torch.from_numpy(np.argsort(order))]

    def right(model: Any, split: common.Split) -> Any:
        model.eval()
        return run(lambda batch: model(**batch).logits, split).argmax(-1).numpy() == split.labels

    best: dict[str, Any] = {"validation": -1.0}
    for rate in work["rates"]:
        seed_everything(derived(work["seed"], "weights"))
        model = sentence_model(torch.nn.Identity()).eval()
        features = run(lambda b, m=model: m.features(b["attention_mask"], input_ids=b["input_ids"]), train)
        model.classifier = CosineHead(384, 77, 20.0, 0.1)
        TextClassification().start(model.classifier, features, torch.from_numpy(train.labels))
        per_epoch = math.ceil(len(train.tokens) / ROWS)
        steps = per_epoch * work["epochs"]
        draw = torch.Generator().manual_seed(work["seed"])
        order = torch.cat([torch.randperm(len(train.tokens), generator=draw) for _ in range(work["epochs"])])
        ends = [e * len(train.tokens) + min((s + 1) * ROWS, len(train.tokens)) for e in range(work["epochs"])
                for s in range(per_epoch)]  # fmt: skip
        starts = [0, *ends]
        wrapped = peft_model(work["method"], "classification", model, steps)
        loop = Loop(wrapped, rate, steps, lambda s, o=order, b=starts: padded(train, o[b[s] : b[s + 1]].numpy()))
        for _ in range(work["epochs"]):
            loop.run(per_epoch)
            score = float(right(wrapped, valid).mean())
            if score > best["validation"]:
                kept = copy.deepcopy({k: v for k, v in wrapped.named_parameters() if v.requires_grad})
                best = {"validation": score, "rate": rate, "model": wrapped, "state": kept}
    with torch.no_grad():
        for key, value in best["model"].named_parameters():
            if key in best["state"]:
                value.copy_(best["state"][key])
    trainable = sum(value.numel() for value in best["state"].values())
    found = {key: best[key] for key in ("validation", "rate")}
    return {**found, "score": interval(right(best["model"], test)), "trainable": trainable}


# tinyshakespeare ----------------------------------------------------------------------------------------------


def _halves() -> tuple[Any, Any, Any]:
    train, held = common.prose()
    return train, held[:HELD:2], held[1:HELD:2]


def write_ours(work: dict[str, Any]) -> dict[str, Any]:
    """Train all learning rates in one pass."""
    import torch

    train, valid, test = _halves()
    core, _ = common.backbone(str(common.stories()))
    writers = [
        common.writer(core, ours_method(work["method"], "language"), f"rate-{n}", rate, work["steps"], work["seed"])
        for n, rate in enumerate(work["rates"])
    ]
    common.write_steps(
        core, writers, work["steps"], lambda step: common.prose_batch(train, step, LANGUAGE_ROWS, work["seed"])
    )

    @torch.no_grad()
    def nats(name: str, rows: Any) -> Any:
        core.model.eval()
        core.seams.use(name)
        return torch.cat([common.next_token_losses(core, part, [name])[0] for part in rows.split(16)]).numpy()

    scores = [float(nats(one.delta.name, valid).mean()) for one in writers]
    chosen = min(range(len(writers)), key=lambda number: scores[number] if math.isfinite(scores[number]) else math.inf)
    one = writers[chosen]
    return {
        "score": interval(nats(one.delta.name, test)),
        "validation": scores[chosen],
        "rate": work["rates"][chosen],
        "trainable": sum(parameter.numel() for parameter in one.delta.parameters()),
    }


def write_theirs(work: dict[str, Any]) -> dict[str, Any]:
    """Train PEFT's version with each learning rate in turn."""
    import torch
    import transformers

    from tunesmith.core.seeds import derived, seed_everything

    train, valid, test = _halves()
    best: dict[str, Any] = {"validation": math.inf}

    @torch.no_grad()
    def nats(model: Any, rows: Any) -> Any:
        model.eval()
        found = []
        for part in rows.split(16):
            logits = model(input_ids=part).logits[:, -part.shape[1] : -1]
            losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), part[:, 1:], reduction="none")
            found.append(losses.mean(-1))
        return torch.cat(found).numpy()

    for rate in work["rates"]:
        seed_everything(derived(work["seed"], "weights"))
        model = transformers.AutoModelForCausalLM.from_pretrained(common.stories(), use_safetensors=True)
        wrapped = peft_model(work["method"], "language", model, work["steps"])

        def batch(step: int) -> dict[str, Any]:
            ids = common.prose_batch(train, step, LANGUAGE_ROWS, work["seed"])
            return {"input_ids": ids, "labels": ids}

        loop = Loop(wrapped, rate, work["steps"], batch)
        loop.run(work["steps"])
        score = float(nats(wrapped, valid).mean())
        if score < best["validation"]:
            trainable = sum(one.numel() for one in loop.parameters)
            best = {"validation": score, "rate": rate, "score": interval(nats(wrapped, test)), "trainable": trainable}
    return best
