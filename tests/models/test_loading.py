"""Models that cannot be opened are refused at once, with what is wrong with them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from tests.conftest import save_tiny_writer
from tunesmith.core.errors import CheckpointError, CompatibilityError, RecipeError
from tunesmith.models.loading import choose_device, load_model, locate

CPU = torch.device("cpu")


def test_a_folder_that_is_not_there_is_no_name_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=r"the folder out/mime does not exist.*did you mean out/mine\?"):
        locate("out/mime")


def test_the_hub_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def refuse(api: Any, name: str, **settings: Any) -> None:
        asked.append(name)
        raise ConnectionError("no network")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    with pytest.raises(CheckpointError, match=r"there is no folder owner/nope, and the hub .*no network.*local folder"):
        locate("owner/nope")
    assert asked == ["owner/nope"]
    with pytest.raises(CheckpointError, match="the hub gives no model of that name"):
        locate("a b/c")


def test_an_architecture_without_the_head_that_the_task_needs(tiny_writer: Path) -> None:
    with pytest.raises(
        CompatibilityError, match=r"no head that fills in hidden tokens for Llama.*causal in the place of masked"
    ):
        load_model(locate(str(tiny_writer)), CPU, opens="masked")


def test_a_damaged_config_is_named(tiny_writer: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_writer, tmp_path / "model"))
    (folder / "config.json").write_text("{oops")
    with pytest.raises(CheckpointError, match=r"config\.json is damaged, as it is not JSON"):
        locate(str(folder))


def test_weights_of_other_sizes_than_the_config(tmp_path: Path) -> None:
    folder = save_tiny_writer(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 40}))
    with pytest.raises(
        CheckpointError, match=r"6 tensors .*'model\.layers\.0\.mlp\.down_proj\.weight': \(32, 48\) .*\(32, 40\) by"
    ):
        load_model(locate(str(folder)), CPU, opens="causal")


@pytest.mark.parametrize("wanted", ["cpu:first", "cpu:", "cuda:x", "cuda:-1"])
def test_a_device_whose_number_is_none(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(RecipeError, match=f"device: '{wanted}' is not available"):
        choose_device(wanted)
