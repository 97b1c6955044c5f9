"""The folder of a run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tunesmith.runs.folder import staged


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o755), (0o077, 0o700)])
def test_nobody_may_look_into_a_run_whom_the_umask_leaves_out(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        with staged(tmp_path / "run") as folder:
            (folder / "a.txt").write_text("one")
    finally:
        os.umask(before)
    assert (tmp_path / "run").stat().st_mode & 0o777 == mode
