"""The folder of a run: it takes its name whole, or the older one stays."""

import os
from pathlib import Path

import pytest

from tunesmith.core.errors import CheckpointError
from tunesmith.runs.folder import staged


@pytest.mark.parametrize("fails", [1, 2, None])
def test_an_older_run_stays_where_the_new_one_cannot_take_its_place(
    fails: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, replace, calls = tmp_path / "run", os.replace, list[int]()
    output.mkdir()
    (output / "file").write_text("older")

    def refused(source: Path, target: Path) -> None:
        calls.append(1)
        if len(calls) == fails:
            raise OSError("no")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refused)
    try:
        with staged(output) as folder:
            (folder / "file").write_text("newer")
    except CheckpointError:
        assert fails is not None
    assert (output / "file").read_text() == ("newer" if fails is None else "older")
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "nothing is left beside it"


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o755), (0o077, 0o700)])
def test_nobody_may_look_into_a_run_whom_the_umask_leaves_out(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        with staged(tmp_path / "run") as folder:
            (folder / "a.txt").write_text("one")
    finally:
        os.umask(before)
    assert (tmp_path / "run").stat().st_mode & 0o777 == mode
