"""A loop's folder: begun anew while nothing was tried; answers that are damaged are named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tunesmith.core.errors import CheckpointError
from tunesmith.evaluation.predictions import Predictions
from tunesmith.search.attempts import Record

ANSWERS = Predictions(np.full((200, 3), 1 / 3), np.arange(200) % 3)


def test_a_loop_of_which_nothing_was_tried_is_begun_anew(tmp_path: Path) -> None:
    Record(tmp_path / "loop", {"recipe": "with a mistake"}, False)
    found = Record(tmp_path / "loop", {"recipe": "without"}, False)
    found.keep_answers(0, ANSWERS)
    assert np.array_equal(found.answers(0).references, ANSWERS.references)
    with pytest.raises(CheckpointError, match="exists. Go on with its loop with --resume"):
        Record(tmp_path / "loop", {"recipe": "without"}, False)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:200] + bytes(40) + content[240:],
        lambda content: b"no archive",
    ],
    ids=["empty", "cut", "overwritten", "other"],
)
def test_damaged_answers_are_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    found = Record(tmp_path / "loop", {}, False)
    found.keep_answers(3, ANSWERS)
    file = tmp_path / "loop" / "answers" / "0003.npz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(CheckpointError, match="0003.npz cannot be read"):
        found.answers(3)
    file.unlink()
    with pytest.raises(CheckpointError, match="0003.npz cannot be read"):
        found.answers(3)
