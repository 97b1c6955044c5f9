"""`tunesmith prompts` as a user meets it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunesmith.cli import main


def test_show_fills_the_prompt_in(
    recipe: dict[str, Any], data_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = data_folder / "asked.yaml"
    prompt = {"template": "{text} It is {label}.", "description": "What is said?"}
    path.write_text(yaml.safe_dump({**recipe, "task": "prompt-classification", "model": "minilm", "prompt": prompt}))
    main.app(["prompts", "show", str(path), "--rows", "1", "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert found["rows"][0]["text"].startswith("What is said?\n")
    assert [one["texts"] for one in found["labels"]] == [["greeting"], ["parting"], ["thanks"]]
    main.app(["prompts", "show", str(path), "prompt.background=Hm.", "--rows", "0"], standalone_mode=False)
    assert "Hm." in capsys.readouterr().out
