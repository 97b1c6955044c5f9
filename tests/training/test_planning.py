"""The plan of a step: passes that fit into a limit, blocks that run again, and what cannot fit."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tunesmith
from tests.conftest import write_jsonl
from tests.runs.test_language_runs import recipe
from tests.training.test_many import backbone, trial
from tunesmith.core.errors import RecipeError, TunesmithError
from tunesmith.methods.lora import Lora
from tunesmith.models import recomputing
from tunesmith.runs.generating import Generating
from tunesmith.training import planning
from tunesmith.training.planning import Plan, _cut, _Step
from tunesmith.training.preflight import _comparable, check


class Fixed(_Step):
    """A step of given sizes."""

    def __init__(self, held: int, longest: int, usual: int) -> None:
        self.held, self.longest, self.usual, self.fixed_tokens = held, longest, usual, False
        self._own, self._kept, self._state = 10, 100.0, 4.0


class Blocks:
    blocks = (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("limit", "blocks", "tokens", "again"),
    [
        (10_000_000, Blocks, None, False),
        (1010 + 40 * 100, Blocks, 40, False),
        (1010 + 19 * 100, Blocks, 46, True),  # 4 blocks: 4 * 4 + 100 / 4 = 41 bytes per token
        (1010 + 19 * 100, None, 20, False),
        (1010, Blocks, 20, True),
    ],
)
def test_small_passes_come_before_blocks_that_run_again(
    limit: int, blocks: Any, tokens: int | None, again: bool
) -> None:
    found = _cut(Fixed(1000, 20, 500), limit, blocks)
    assert (found.tokens, found.again) == (tokens, again)
    assert found.peak_bytes == 1010 + (tokens or 500) * (41 if again else 100)


def test_a_step_whose_rows_are_mixed_is_not_cut() -> None:
    mixed = trial(backbone(0.0), Lora(rank=2), "a", 0, synthetic={"name": "mixup"})
    facts: Any = SimpleNamespace(held_bytes=0, trainable=1)
    assert _Step([(mixed, facts)]).fixed_tokens and not mixed.divisible and mixed.passes([0, 1]) == [[0, 1]]
    few = trial(backbone(0.0), Lora(rank=2), "b", 0, synthetic={"name": "mixup"}, tokens_per_pass=8)
    with pytest.raises(RecipeError, match=r"tokens_per_pass: training.synthetic mixes all rows of a step"):
        check(few)


def test_the_plan_is_said() -> None:
    assert Plan(None, False, 10**9, 10**9).sentence() == "predicted peak memory 1,000 MB"
    assert "at most 64 tokens" in Plan(64, True, 10**9, 10**9).sentence()
    assert "second time" in Plan(64, True, 10**9, 10**9).sentence()


def test_a_run_with_little_memory_ends_where_it_would(
    tiny_writer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"question": f"what comes after {n}?", "answer": f"{n + 1} comes then"} for n in range(24)]
    data = {"train": str(write_jsonl(tmp_path / "rows.jsonl", rows)), "validation": 0.2}
    model = {"name": str(tiny_writer), "dtype": "float64"}

    def trained(name: str, **training: Any) -> tunesmith.Run:
        settings = {"epochs": 1, "batch_size": 8, **training}
        return tunesmith.train(
            recipe(
                tiny_writer,
                tmp_path,
                tmp_path / name,
                data=data,
                model=model,
                training=settings,
                task={"name": "instruction-tuning", "answered_rows": 0, "samples": 0},
            )
        )

    plain = trained("plain")
    used: list[bool] = []
    passes = recomputing.Recomputing.passes
    monkeypatch.setattr(recomputing.Recomputing, "passes", lambda own: used.append(True) or passes(own))
    monkeypatch.setattr(planning._Step, "room", lambda own, limit, again: own.longest if again else 0)
    monkeypatch.setattr(planning._Step, "peak", lambda own, tokens, again: 1 if again else 2**60)
    tight = trained("tight", memory_limit=2**20)
    assert used
    ours, theirs = (run.metrics["validation"]["perplexity"]["value"] for run in (plain, tight))
    assert ours == pytest.approx(theirs, rel=1e-9)


def test_a_limit_that_cannot_hold_one_row_is_refused(tiny_writer: Path, tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"question": f"what is {n}?", "answer": str(n)} for n in range(24)])
    with pytest.raises(RecipeError, match="training.memory_limit=8: the model and this program hold"):
        tunesmith.train(recipe(tiny_writer, rows, tmp_path / "run", training={"memory_limit": 8}))


def test_a_state_without_a_finite_loss_is_never_the_best(
    tiny_writer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"question": f"what comes after {n}?", "answer": f"{n + 1} comes then"} for n in range(24)]
    data = {"train": str(write_jsonl(tmp_path / "rows.jsonl", rows)), "validation": 0.2}
    task = {"name": "instruction-tuning", "answered_rows": 0, "samples": 0}
    validate = Generating.validate

    def broken(own: Generating, tuned: Any) -> dict[str, float]:
        lost = {"validation loss": float("nan")} if tuned.delta.name in ("default", "trial-000") else {}
        return {**validate(own, tuned), **lost}

    monkeypatch.setattr(Generating, "validate", broken)
    with pytest.raises(TunesmithError, match="the validation loss is nan after epoch 1: training diverged"):
        tunesmith.train(recipe(tiny_writer, tmp_path, tmp_path / "one", data=data, task=task))
    changes: list[dict[str, Any]] = [{"seed": 0}, {"seed": 1}]
    found = tunesmith.train(
        recipe(tiny_writer, tmp_path, tmp_path / "two", data=data, task=task, candidates=changes)
    ).summary["candidates"]
    assert [one["chosen"] for one in found] == [False, True]


class Counting(np.ndarray):
    """Counts how often all labels are compared with one."""

    times = 0

    def __eq__(self, other: Any) -> Any:
        Counting.times += 1
        return np.asarray(self) == other

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("codes", [40, 300, 100_000])
def test_rows_that_losses_compare_are_found_without_comparing_all_with_all(codes: int) -> None:
    draw = np.random.default_rng(codes)
    labels, lengths = draw.integers(codes, size=300), draw.integers(1, 50, size=300)
    order = sorted(range(300), key=lambda row: (-lengths[row], row))
    first = next((row for row in order if (labels == labels[row]).sum() > 1), order[0])
    alike = [row for row in order if labels[row] == labels[first] and row != first]
    other = [row for row in order if labels[row] != labels[first]]
    Counting.times = 0
    assert _comparable(labels.view(Counting), lengths) == [first, *alike[:1], *other[:1]]
    assert Counting.times < 10
