"""What is free is what the control group leaves, not counting pages of files that it gives up when memory is short."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tunesmith.core import memory

STAT = {"memory.stat": "anon 300\nfile 500\ninactive_file 400\nactive_file 100\n"}
OLDER_STAT = {"memory/memory.stat": "inactive_file 1\ntotal_inactive_file 400\n"}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"memory.max": "1000", "memory.current": "800"}, 200),
        ({"memory.max": "1000", "memory.current": "800", **STAT}, 600),
        ({"memory.max": "1000", "memory.current": "1500"}, 0),
        ({"memory/memory.limit_in_bytes": "1000", "memory/memory.usage_in_bytes": "800"}, 200),
        ({"memory/memory.limit_in_bytes": "1000", "memory/memory.usage_in_bytes": "800", **OLDER_STAT}, 600),
    ],
)
def test_the_limit_of_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], free: int
) -> None:
    (tmp_path / "memory").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(f"{content}\n")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path)
    assert memory.available_bytes(torch.device("cpu")) == free


@pytest.mark.parametrize("files", [{}, {"memory.max": "max", "memory.current": "800"}])
def test_without_a_limit_the_machine_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(f"{content}\n")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path)
    assert memory.available_bytes(torch.device("cpu")) > 1000
