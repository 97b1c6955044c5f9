"""A tiny model that fills in masks, and a search whose trials are short."""

from pathlib import Path
from typing import Any

import pytest
import transformers

from tests.conftest import TEXTS, save_tiny_bert, write_csv


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny_bert(tmp_path_factory.mktemp("masked"), 0)
    transformers.set_seed(0)
    transformers.BertForMaskedLM(transformers.AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def space(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("search")
    train = [(f"{text} {extra}", label) for label, texts in TEXTS.items() for text in texts for extra in "ab"]
    write_csv(folder / "train.csv", train)
    return {
        "model": str(tiny_folder),
        "data": {"train": str(folder / "train.csv"), "validation": 0.25},
        "method": "lora",
        "training": {"epochs": 1, "batch_size": 8, "learning_rate": {"low": 1e-4, "high": 2e-2, "log": True}},
        "evaluation": {"resamples": 100, "baselines": False},
    }
