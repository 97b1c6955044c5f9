"""Images with parts of others train with shared labels: the right loss, of training rows alone, and on to the bit."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tunesmith
from tests.conftest import save_drawings
from tests.runs.test_resuming import check
from tests.tasks.test_image_classification import image_recipe, opened
from tunesmith.core.errors import RecipeError
from tunesmith.core.registry import find
from tunesmith.data.augmentations.base import build_augmentations
from tunesmith.recipe.loading import load_recipe
from tunesmith.tasks.image_classification import ImageClassification
from tunesmith.training.batching import batch_of
from tunesmith.training.corpus import Split

Found = dict[str, Any]


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_drawings(tmp_path_factory.mktemp("mixed") / "drawings.zip", classes=4, each=10)


@pytest.fixture
def recipe(tiny_vision: Path, drawings: Path, tmp_path: Path) -> Found:
    """A recipe in float64 whose images all get parts of others."""
    found = image_recipe(tiny_vision, drawings, tmp_path / "run")
    found["model"] = {"name": str(tiny_vision), "dtype": "float64"}
    found["data"]["augmentation"] = ["rotate", {"name": "cutmix", "rate": 1}]
    found["evaluation"]["baselines"] = False
    return found


def split_of(folder: Path, model: Path, steps: list[Any]) -> tuple[Any, Split]:
    """A backbone in float64, and a split of eight images of four labels."""
    core = opened(model)
    names = [f"{folder}/class{label}/{copy}.png" for label in range(4) for copy in range(2)]
    rows = core.pictures.augmented(core.pictures.rows(names), build_augmentations(steps))
    labels = np.arange(8) // 2
    found: Any = Split("train", None, np.arange(8), labels, rows, None)  # type: ignore[arg-type]
    found.soft = np.eye(4, dtype=np.float32)[labels]
    return core, found


def test_the_loss_is_the_sum_of_two_losses_by_the_shares(tiny_vision: Path, drawings: Path) -> None:
    core, split = split_of(drawings, tiny_vision, [{"name": "cutmix", "rate": 1}])
    task: Any = ImageClassification().settled(core.model, "mean")
    torch.manual_seed(0)
    head = torch.nn.Linear(32, 4, dtype=torch.float64)
    total, mixed = 0.0, 0
    batch = batch_of(split, list(range(8)), draw=5)
    with torch.no_grad():
        outputs = task.read(core, batch)
        found = task.loss_of(core, head, None, outputs, batch, 0.0)
        losses = -head(outputs).log_softmax(-1)
    for place, row in enumerate(batch.index.tolist()):
        shares = split.tokens.seen(row, 5).shares
        (own, kept), (other, rest) = shares
        number = int(batch.ids[place * 5]) // 5
        pixels, plain = core.pictures.pixels([number])[0], core.pictures.pixels([int(split.tokens.numbers[row])])[0]
        partner = core.pictures.pixels([int(split.tokens.numbers[other])])[0]
        covered = (pixels == partner) & (pixels != plain)
        assert own == row and kept + rest == 1 and covered.mean() <= rest + 1e-9, "shares are those of the area"
        assert ((pixels == plain) | covered).all()
        total += kept * float(losses[place, split.labels[own]]) + rest * float(losses[place, split.labels[other]])
        mixed += bool(covered.any())
    assert mixed >= 4
    assert found.item() == pytest.approx(total / 8, rel=1e-12)


def test_shares_multiply_where_an_image_is_mixed_twice(tiny_vision: Path, drawings: Path) -> None:
    steps = [{"name": "cutmix", "rate": 1}, {"name": "flip", "rate": 0.5}]
    core, split = split_of(drawings, tiny_vision, steps)
    step = build_augmentations(steps[:1])[0]
    twice = core.pictures.augmented(split.tokens, [step, step])
    shares = twice.seen(3, 9).shares
    assert len(shares) == 3 and sum(share for _, share in shares) == pytest.approx(1)
    assert split.tokens.seen(3).shares == () and twice.seen(3).shares == (), "as it is for evaluation"


def test_partners_are_the_rows_that_are_left(tiny_vision: Path, drawings: Path) -> None:
    core, split = split_of(drawings, tiny_vision, [{"name": "cutmix", "rate": 1}])
    few = split.tokens.take(np.array([6, 1]))
    asked = {row for draw in range(1, 40) for row, _ in few.seen(0, draw).shares}
    assert asked == {0, 1}, "numbers among the rows that were taken"
    ids = few.seen(0, 3).ids
    del split
    assert core.pictures.pixels([int(ids[0]) // 5]).shape == (1, 1, 8, 8)


def images_of(run: tunesmith.Run, name: str, drawings: Path) -> set[bytes]:
    """The pixels of a split's images."""
    listed = json.loads((run.folder / "splits.json").read_text())[name]["numbers"]
    with zipfile.ZipFile(drawings) as archive:
        entries = sorted(archive.namelist())
        return {np.asarray(Image.open(io.BytesIO(archive.read(entries[number - 1])))).tobytes() for number in listed}


def test_training_mixes_training_images_alone(recipe: Found, drawings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe["data"]["augmentation"] = [{"name": "cutmix", "rate": 0.5}]
    kind, asked = find("augmentations", "cutmix"), list[bytes]()
    mixed = kind.mixed

    def watched(self: Any, image: Any, other: Any, draw: Any) -> Any:
        if image.any():  # shares are asked of blank images
            asked.extend((image[0].tobytes(), other()[0].tobytes()))
        return mixed(self, image, other, draw)

    monkeypatch.setattr(kind, "mixed", watched)
    run = tunesmith.train(recipe)
    parts = {name: images_of(run, name, drawings) for name in ("train", "validation", "test")}
    assert parts["train"].isdisjoint(parts["validation"] | parts["test"]) and len(parts["train"]) > 20
    assert set(asked) <= parts["train"]
    rows = 3 * len(parts["train"])
    assert 0.3 * rows < len(asked) / 2 < 0.7 * rows, "half of the images, in every epoch"
    assert run.metrics["test"]["accuracy"]["value"] > 1.5 / 4


def test_a_step_in_passes_learns_the_same(recipe: Found) -> None:
    whole = tunesmith.train(recipe)
    recipe["training"]["tokens_per_pass"] = 12
    parts = tunesmith.train({**recipe, "output": recipe["output"] + "-parts"})
    first, second = (
        [json.loads(line)["train loss"] for line in (run.folder / "history.jsonl").read_text().splitlines()]
        for run in (whole, parts)
    )
    assert first == pytest.approx(second, rel=1e-8) and len(first) == 3


CANDIDATES: list[Found] = [{}, {"method.rank": 2, "seed": 1}, {"training.synthetic": "mixup"}]


@pytest.mark.parametrize("more", [{}, {"candidates": CANDIDATES}])
def test_a_killed_run_goes_on_to_the_bit(recipe: Found, more: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe["training"]["checkpoint_every_steps"] = 2
    check({**recipe, **more}, 5, monkeypatch)


def test_a_candidate_learns_as_alone(recipe: Found) -> None:
    alone = tunesmith.train({**recipe, "method": {"name": "lora", "rank": 2}, "output": recipe["output"] + "-alone"})
    both = tunesmith.train({**recipe, "candidates": [{"method.rank": 2}, {"training.learning_rate": 1e-9}]})
    histories = [
        [json.loads(line)["train loss"] for line in path.read_text().splitlines()]
        for path in (alone.folder / "history.jsonl", both.folder / "history.jsonl")
    ]
    assert histories[0] == pytest.approx(histories[1], rel=1e-8)


def test_corrected_labels_are_shared_as_corrected(recipe: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.data.cleaning.base import Verdict
    from tunesmith.data.cleaning.label_errors import LabelErrors
    from tunesmith.training import loop

    monkeypatch.setattr(LabelErrors, "judge", lambda self, rows: {0: Verdict("so", "relabelled", label=3)})
    seen = list[Split]()
    fit = loop.Loop.fit

    def watched(self: Any, *given: Any, **named: Any) -> None:
        seen.append(self.trials[0].split)
        fit(self, *given, **named)

    monkeypatch.setattr(loop.Loop, "fit", watched)
    recipe["data"]["cleaning"] = [{"name": "label-errors", "do": "correct"}]
    tunesmith.train(recipe)
    assert seen[0].soft is not None and seen[0].labels[0] == 3 and seen[0].soft[0].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(("keys", "said"), [
    ({"task": {"name": "image-classification", "losses": ["focal"]}}, "the loss focal cannot learn what cutmix makes"),
    ({"task": {"name": "image-classification", "head_kind": "prototypes"}}, "cannot learn what cutmix makes"),
    ({"training": {"class_weights": "root"}}, "training.class_weights: a row that cutmix"),
    ({"task": {"name": "image-classification", "reject": {}}}, "task.reject: a row that cutmix"),
    ({"task": "text-classification"}, "cutmix is for images, and task 'text-classification' reads text"),
])  # fmt: skip
def test_what_cannot_learn_shared_labels_is_refused(recipe: Found, keys: Found, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe({**recipe, "data": {**recipe["data"], "augmentation": ["cutmix"]}, **keys})
