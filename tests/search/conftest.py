"""A tiny model that fills in masks."""

from pathlib import Path

import pytest
import transformers

from tests.conftest import save_tiny_bert


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny_bert(tmp_path_factory.mktemp("masked"), 0)
    transformers.set_seed(0)
    transformers.BertForMaskedLM(transformers.AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    return folder
