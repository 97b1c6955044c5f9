"""Threads follow what the control group allows, unless the environment says otherwise."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tunesmith.core import threads


@pytest.fixture(autouse=True)
def groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.setattr(threads, "_GROUPS", tmp_path)
    for name in threads._CHOSEN:
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield tmp_path
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("limit", "allowed"), [("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1), ("max 100000", None)]
)
def test_the_limit_of_a_group(groups: Path, limit: str, allowed: int | None) -> None:
    (groups / "cpu.max").write_text(f"{limit}\n")
    assert threads.allowed_processors() == allowed


@pytest.mark.parametrize(("quota", "allowed"), [("300000", 3), ("-1", None)])
def test_the_limit_of_an_older_group(groups: Path, quota: str, allowed: int | None) -> None:
    (groups / "cpu").mkdir()
    (groups / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (groups / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert threads.allowed_processors() == allowed


def test_without_groups_nothing_is_limited() -> None:
    threads.settle_threads()
    assert torch.get_num_threads() == 4


def test_fewer_threads_are_taken_and_said(groups: Path, caplog: pytest.LogCaptureFixture) -> None:
    (groups / "cpu.max").write_text("200000 100000\n")
    with caplog.at_level(logging.WARNING, "tunesmith"):
        threads.settle_threads()
        threads.settle_threads()
    assert torch.get_num_threads() == 2
    assert caplog.text.count("2 threads instead of 4") == 1


def test_never_more_threads_than_before(groups: Path) -> None:
    (groups / "cpu.max").write_text("800000 100000\n")
    threads.settle_threads()
    assert torch.get_num_threads() == 4


def test_a_number_that_the_user_set_stays(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (groups / "cpu.max").write_text("200000 100000\n")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    threads.settle_threads()
    assert torch.get_num_threads() == 4
