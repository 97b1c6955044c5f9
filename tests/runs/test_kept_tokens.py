"""A later run reads the tokens that an earlier one made, says so, and ends with the same numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tunesmith.data import token_store


@pytest.fixture(autouse=True)
def _keep_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(token_store, "_LARGE", 1)


def check(recipe: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = tunesmith.train(recipe | {"output": str(folder / "one")})
    assert "kept by an earlier run" not in capsys.readouterr().err
    second = tunesmith.train(recipe | {"output": str(folder / "two")})
    assert "kept by an earlier run" in capsys.readouterr().err
    for name in ("delta/adapter_model.safetensors", "history.jsonl"):
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()
    assert first.metrics == second.metrics


def test_labelled_rows(recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(recipe, tmp_path, capsys)


@pytest.mark.parametrize("kind", ["conversations", "texts"])
def test_language_rows(kind: str, tiny_writer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"question": f"hello number {n}", "answer": f"good morning {n} to you"} for n in range(12)]
    task: dict[str, Any] = {"name": "instruction-tuning", "answered_rows": 0}
    if kind == "texts":
        rows = [{"text": f"hello friend number {n}, good morning to you"} for n in range(12)]
        task = {"name": "text-generation"}
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    check(
        {
            "task": task,
            "model": str(tiny_writer),
            "data": {"train": str(data), "max_tokens": 32},
            "method": {"name": "lora", "rank": 2},
            "training": {"epochs": 1, "batch_size": 4},
            "evaluation": {"baselines": False},
        },
        tmp_path,
        capsys,
    )
