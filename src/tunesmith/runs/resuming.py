"""Going on with a run that was not finished: what must be as it was, and what may have changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import tunesmith
from tunesmith.core.errors import CheckpointError, RecipeError
from tunesmith.core.files import hash_of, read_json
from tunesmith.core.launch import launched
from tunesmith.recipe.episodes import CheckedEpisodes
from tunesmith.recipe.lines import parse
from tunesmith.recipe.loading import Checked
from tunesmith.recipe.starting import find_run
from tunesmith.runs.folder import FINGERPRINT, check_free
from tunesmith.runs.session import Session
from tunesmith.runs.writing import fingerprint
from tunesmith.training.checkpoints import FOLDER as CHECKPOINTS
from tunesmith.training.checkpoints import Checkpoint, Checkpoints, drop, found, newest
from tunesmith.training.corpus import Corpus
from tunesmith.training.reading import resolve_path

# Keys that decide nothing about the steps already made. Of others the message tells both values.
MAY_CHANGE = (
    "output", "training.epochs", "training.patience", "training.checkpoint_every_steps", "training.trackers",
    "training.shard_base",
    "evaluation.resamples", "evaluation.confidence", "evaluation.baselines",
)  # fmt: skip
_FILES = ("data.train", "data.also_train", "data.validation", "data.test", "model.name")  # may move: content counts
_SAME = ("base_model_hash", "tokenizer_hash", "labels_hash", "max_tokens")  # else the steps were made by another run
_SETTLED = ("task", "prompt", "model")  # of these a run writes down what a recipe leaves empty
_NAMED = ("code", "python", "torch", "transformers", "tokenizers", "safetensors", "numpy", "machine", "device",
          "processes")  # fmt: skip

OF_A_PROCESS = ("began", "created", "device", "machine")  # facts that may differ between processes that train together

Say = Callable[[str], None]
Recipe = Checked | CheckedEpisodes


@dataclass(frozen=True)
class Going:
    """Where a run's checkpoints lie.

    Args:
        output: of the run.
        checkpoint: to go on from; None when training starts anew.
    """

    output: Path
    checkpoint: Checkpoint | None = None

    @cached_property
    def began(self) -> str:
        """When the run began, however often it has gone on since; it tells its files from those of one it replaces."""
        before = self.checkpoint
        return datetime.now(UTC).isoformat() if before is None else str(before.facts.get("began", ""))

    def facts(self, checked: Checked, session: Session, corpus: Corpus, say: Say) -> dict[str, Any]:
        """Say what is trained, after comparing it with what the checkpoint was made of.

        Args:
            checked: the recipe.
            session: its model.
            corpus: its data.
            say: told of changed versions and machines.
        Returns:
            Plain values.
        Raises:
            CheckpointError: other data, another model or another tokenizer.
        """
        facts = facts_of(checked, session, corpus)
        if self.checkpoint is not None:
            check_same(self.checkpoint, facts, say)
        return {**facts, "began": self.began}

    def begin(self, checked: Checked, facts: Mapping[str, Any], say: Say, writes: bool = True) -> Checkpoints:
        """Open the folder of checkpoints; an older run's are removed when training starts anew.

        Args:
            checked: the recipe.
            facts: of what is trained.
            say: told what the user should know.
            writes: whether this process is the one that writes.
        Returns:
            The checkpoints.
        """
        opened = Checkpoints(self.output, facts, checked.recipe.training.checkpoint_every_steps, say)
        if writes:
            opened.begin(self.checkpoint)
        return opened


def facts_of(checked: Checked, session: Session, corpus: Corpus) -> dict[str, Any]:
    """Say what is trained, for comparison when training goes on.

    Args:
        checked: the recipe.
        session: its model.
        corpus: its data.
    Returns:
        Plain values.
    """
    recipe = checked.resolved()
    files = [name for name in ("train", "validation", "test", "unlabelled") if isinstance(recipe["data"][name], str)]
    data = dict(zip(files, corpus.content_hash.split("+"), strict=True)) | corpus.descriptions
    if recipe["data"]["teacher"] is not None:
        data["teacher"] = hash_of(read_json(find_run(recipe["data"]["teacher"], checked.folder) / FINGERPRINT, dict))
    made = {"code": code(), "processes": launched().count}
    return {**fingerprint(session, checked, corpus), **made, "recipe": recipe, "data": data}


def check_wishes(output: Path, overwrite: bool, resume: bool) -> None:
    """Refuse, before any work, to go on with a run and to replace it at once; or an output folder that is taken.

    Args:
        output: of the run.
        overwrite: whether an existing run may be replaced.
        resume: whether to go on with one.
    Raises:
        RecipeError: both are wanted.
        CheckpointError: the folder is taken, or cannot be made.
    """
    if resume and overwrite:
        raise RecipeError("--resume goes on with a run, --overwrite replaces it: leave one of the two out.")
    if not resume:
        check_free(output, overwrite)


def is_finished(output: Path) -> bool:
    """Say whether a folder holds a run that needs nothing more.

    Args:
        output: of the run.
    """
    return (output / FINGERPRINT).is_file() and not found(output / CHECKPOINTS)


def find_checkpoint(output: Path, checked: Recipe, say: Say) -> Checkpoint | None:
    """Find what to go on from, and refuse another recipe than the one that began.

    Args:
        output: of the run.
        checked: the recipe.
        say: told which checkpoint it is, that there is none, and what changed.
    Returns:
        The checkpoint; None when the run begins anew.
    Raises:
        CheckpointError: the recipe differs in what may not change, or every checkpoint is damaged.
    """
    checkpoint = newest(output, say)
    if checkpoint is None:
        say(f"nothing to resume in {output}: training starts anew")
        check_free(output, overwrite=False)
        return None
    told = _check_recipe(checkpoint, checked)
    if told:
        say(f"note: since the checkpoint {_worded(told)}.")
    if isinstance(checked, Checked):
        _check_epochs(checkpoint, checked, [key for key, _, _ in told], say)
    say(f"going on from step {checkpoint.step} ({checkpoint.folder})")
    return checkpoint


def check_finished(output: Path, checked: Recipe, say: Say) -> None:
    """Refuse to take a finished run for that of another recipe; clear what a kill left of its checkpoints.

    Args:
        output: of the run.
        checked: the recipe.
        say: told that there is nothing left to do.
    Raises:
        CheckpointError: the recipe differs.
    """
    saved = parse((output / "recipe.yaml").read_text(encoding="utf-8"), str(output / "recipe.yaml"))[0]
    changed = [
        (key, before, now)
        for key, before, now in _differences(saved, checked.resolved())
        if key not in ("output", *_FILES)
        and not _left_open(key, now, checked)
        and not _same_place(before, now, checked)
    ]
    if changed:
        raise CheckpointError(
            f"{output} is a finished run of another recipe: {_worded(changed)}. Choose another folder with "
            "output=FOLDER, or replace it with --overwrite."
        )
    if read_json(output / "metrics.json", dict).get("interrupted"):
        raise CheckpointError(
            f"{output} was interrupted before its first checkpoint, so there is nothing to go on from. Start anew with "
            "--overwrite."
        )
    drop(output / CHECKPOINTS)
    say(f"{output} is finished: nothing to resume")


def _left_open(key: str, now: Any, checked: Recipe) -> bool:
    """Whether a recipe leaves it to the run to settle a value."""
    if key == "prompt.demonstrations.examples" and isinstance(checked, Checked):
        # chosen from training rows, and written down by the run
        return not now and checked.recipe.prompt.demonstrations.count > 0
    return now == "auto" or (now is None and key.partition(".")[0] in _SETTLED)


def _same_place(before: Any, now: Any, checked: Recipe) -> bool:
    """Whether a recipe names a file that a run wrote down as an absolute path."""
    named = isinstance(before, str) and isinstance(now, str)
    return named and Path(before) == Path(resolve_path(now, checked.folder)).absolute()


def check_same(checkpoint: Checkpoint, facts: Mapping[str, Any], say: Say) -> None:
    """Refuse to go on with other data, another model or another tokenizer, and name what else changed.

    Args:
        checkpoint: to go on from.
        facts: of what would go on.
        say: told of changed versions and machines.
    Raises:
        CheckpointError: both values are shown.
    """
    before = checkpoint.facts
    pairs = [(f"data.{name}", before["data"].get(name), now) for name, now in facts["data"].items()]
    pairs += [(key, before.get(key), facts[key]) for key in _SAME if key in facts]
    changed = [(key, old, new) for key, old, new in pairs if old != new]
    if changed:
        raise CheckpointError(
            f"{checkpoint.folder} was made with other data or another model, so training cannot go on from it: "
            f"{_worded(changed)}. Put back what was there, or start anew with --overwrite."
        )
    noted = [(key, before.get(key), facts[key]) for key in _NAMED if before.get(key) != facts.get(key)]
    if noted:
        say(f"note: since the checkpoint {_worded(noted)}. What follows may differ from one uninterrupted run.")


def _check_recipe(checkpoint: Checkpoint, checked: Recipe) -> list[tuple[str, Any, Any]]:
    """Refuse another recipe, and return what may have changed and did, with both values."""
    now = checked.resolved()
    changed = list(_differences(checkpoint.facts["recipe"], now))
    wrong = [item for item in changed if item[0] not in MAY_CHANGE and not _moved(*item)]
    if wrong:
        may = ", ".join(key for key in MAY_CHANGE if _has(now, key))
        raise CheckpointError(
            f"{checkpoint.folder} was made by another recipe: {_worded(wrong)}. Only {may} may change on the way. Take "
            "the old values to go on, or start anew with --overwrite."
        )
    return [item for item in changed if item[0] not in ("output", *_FILES)]


def _has(values: Mapping[str, Any], key: str) -> bool:
    first, _, rest = key.partition(".")
    return first in values and (not rest or _has(values[first], rest))


def _check_epochs(checkpoint: Checkpoint, checked: Checked, changed: list[str], say: Say) -> None:
    begun = _begun(checkpoint, checked)
    if checked.recipe.training.epochs < begun:
        raise CheckpointError(
            f"training.epochs={checked.recipe.training.epochs}: {checkpoint.folder} is in epoch {begun} already. "
            f"Ask for {begun} or more."
        )
    if "training.epochs" in changed:
        say(
            "note: the learning rate falls over all epochs, so from here on it is that of the new number; the run is "
            "not what one of so many epochs from the start would have been."
        )


def _begun(checkpoint: Checkpoint, checked: Checked) -> int:
    """Return in which epoch the trials are, of the stages that `training.epochs` says the length of."""
    own = getattr(checked.scheme, "epochs", None) is not None
    trials = [one for one in checkpoint.state["trials"].values() if not (own and one["stage"][0])]
    return max((one["epoch"] - one["stage"][0] for one in trials), default=0)


def _moved(key: str, before: Any, now: Any) -> bool:
    """Whether a file or folder may only have another place; what it holds is compared later."""
    several = isinstance(before, list) and isinstance(now, list) and len(before) == len(now)
    return key in _FILES and (several or (isinstance(before, str) and isinstance(now, str)))


def _differences(before: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Go through the keys whose values differ, at any depth of mappings."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in dict.fromkeys([*before, *now]):
            yield from _differences(before.get(name), now.get(name), f"{key}.{name}" if key else name)
    elif before != now:
        yield key, before, now


def _worded(changed: list[tuple[str, Any, Any]]) -> str:
    return ", ".join(f"{key} was {before!r} and is {now!r}" for key, before, now in changed)


@cache
def code() -> str:
    """Identify this package: its version, and its sources, which change more often."""
    folder, digest = Path(tunesmith.__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return f"{tunesmith.__version__} ({digest.hexdigest()[:12]})"
