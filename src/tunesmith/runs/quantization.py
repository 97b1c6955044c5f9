"""What a quantised base lost: the same model in full precision, read on the same rows."""

from __future__ import annotations

import dataclasses
from typing import Any

from tunesmith.core.progress import Progress
from tunesmith.evaluation.baselines.base import Material
from tunesmith.evaluation.baselines.linear_probe import LinearProbe
from tunesmith.evaluation.predictions import Predictions
from tunesmith.models.backbone import Backbone
from tunesmith.models.loading import load_model
from tunesmith.models.sequences import open_language
from tunesmith.runs.comparing import Frozen, Judge, Meter, Scored, frozen_features
from tunesmith.runs.session import Session
from tunesmith.training.corpus import Corpus

_SPLIT = "validation"


def compare_with_full_precision(
    session: Session, corpus: Corpus, frozen: Frozen, judge: Judge, progress: Progress
) -> dict[str, Any]:
    """Compare the untuned model with itself before it was quantised: its features, and a linear probe on them.

    Args:
        session: of the quantised model.
        corpus: the splits.
        frozen: features of the quantised model on train and validation.
        judge: scores the probes.
        progress: for the user.
    Returns:
        Plain values for metrics.json; empty for a model in full precision.
    """
    quantised, model = session.quantised, session.backbone.model
    if quantised is None:
        return {}
    opens = session.task.opens
    whole = load_model(session.source, session.backbone.device, model.dtype, opens)  # type: ignore[arg-type]
    backbone = Backbone(whole) if opens == "body" else open_language(whole)
    other = dataclasses.replace(session, backbone=backbone, quantised=None)
    full = frozen_features(other, corpus, ["train", _SPLIT], Meter(session.backbone.device), progress)
    mine, theirs = frozen.features[_SPLIT], full.features[_SPLIT]
    metric = judge.metrics[0].name
    scores = {
        name: _probe(session, corpus, found, judge).scores[_SPLIT][metric].plain()
        for name, found in (("full precision", full), (quantised.bits, frozen))
    }
    return {
        **dataclasses.asdict(quantised),
        "feature_error": float((mine - theirs).norm() / theirs.norm()),
        "split": _SPLIT,
        "probe_metric": metric,
        "probe": scores,
    }


def worded(found: dict[str, Any]) -> str:
    """Word the comparison.

    Args:
        found: by `compare_with_full_precision`.
    Returns:
        A sentence for the report.
    """
    (_, full), (bits, fewer) = found["probe"].items()
    return (
        f"quantised base ({bits}): its features on {found['split']} differ by {100 * found['feature_error']:.2f} % "
        f"from full precision; a linear probe on them has {found['probe_metric']} {fewer['value']:.3f} "
        f"({fewer['low']:.3f} to {fewer['high']:.3f}) against {full['value']:.3f} ({full['low']:.3f} to "
        f"{full['high']:.3f})."
    )


def _probe(session: Session, corpus: Corpus, frozen: Frozen, judge: Judge) -> Scored:
    splits = ["train", _SPLIT]
    material = Material(
        features={name: frozen.features[name].numpy() for name in splits},
        labels={name: corpus.splits[name].labels for name in splits},
        label_names=corpus.label_names,
        embed=_no_texts,
        label_features=_no_label_features,
        width=session.backbone.width,
        seed=0,
    )
    probe = LinearProbe()
    found = Predictions(probe.predict(material, [_SPLIT])[_SPLIT], corpus.splits[_SPLIT].labels)
    return judge.score(Scored(probe.name, {_SPLIT: found}, 0.0, frozen.costs[_SPLIT]))


def _no_texts(texts: list[str]) -> Any:
    raise NotImplementedError("a linear probe embeds no label names")


def _no_label_features() -> Any:
    raise NotImplementedError("a linear probe embeds no label names")
