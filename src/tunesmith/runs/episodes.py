"""Carry out a recipe of meta-training: data, model, learner, scores on held-out classes, run folder."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from tunesmith.core.files import finite, write_json, write_text
from tunesmith.core.progress import Progress
from tunesmith.core.registry import find
from tunesmith.core.seeds import derived, seed_everything
from tunesmith.evaluation.episode_page import episodes_page
from tunesmith.evaluation.statistics import Bootstrap, Estimate
from tunesmith.fewshot.episodes import EpisodeSampler, EpisodeShape
from tunesmith.fewshot.learners.base import Learned, Learner
from tunesmith.fewshot.meta_training import MetaTrained, MetaTraining
from tunesmith.fewshot.rows import Rows
from tunesmith.fewshot.scoring import EpisodeScore, score
from tunesmith.methods.store import save_delta, save_tensors
from tunesmith.models.convolution import ConvEncoder
from tunesmith.models.seams import count
from tunesmith.recipe.episodes import CheckedEpisodes, load_episodes
from tunesmith.recipe.loading import to_yaml
from tunesmith.recipe.schema import TrainingSettings
from tunesmith.runs.episode_data import Labelled, read_split
from tunesmith.runs.episode_model import EpisodeModel, open_episode_model
from tunesmith.runs.folder import BASE, CLASSES, FINGERPRINT, completed, unfinished
from tunesmith.runs.resuming import check_finished, check_same, check_wishes, code, find_checkpoint, is_finished
from tunesmith.runs.writing import versions
from tunesmith.training.checkpoints import Checkpoint, Checkpoints
from tunesmith.training.optimizing import Optimizer
from tunesmith.training.stopping import ENDED

BEFORE = "class means, before training"


@dataclass
class EpisodesOutcome:
    """What meta-training found.

    Args:
        checked: the recipe.
        model: with the delta.
        learned: delta and head.
        parts: rows learned from and rows scored on.
        trained: how training went.
        scores: by contender and shape of episode.
        seconds: all of it took, and training before it was stopped.
    """

    checked: CheckedEpisodes
    model: EpisodeModel
    learned: Learned
    parts: tuple[Labelled, Labelled]
    trained: MetaTrained
    scores: dict[str, dict[str, EpisodeScore]]
    seconds: float

    @property
    def bootstrap(self) -> Bootstrap:
        """How intervals are drawn."""
        recipe = self.checked.recipe
        settings = recipe.evaluation
        return Bootstrap(settings.resamples, settings.confidence, derived(recipe.seed, "bootstrap"))


def train_episodes(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
    resume: bool = False,
) -> Path:
    """Carry out a recipe of meta-training and leave a run folder.

    Args:
        recipe: of meta-training, a YAML file or a mapping with the same keys.
        overrides: `key=value` texts that win over it.
        overwrite: replace an existing run.
        progress: for the user.
        resume: go on from the newest checkpoint in the output; start anew where there is none.
    Returns:
        The run folder.
    Raises:
        TunesmithError: any of its kinds, each with what to do.
        SystemExit: the process was asked to end; a checkpoint was written.
    """
    progress = progress or Progress()
    checked = load_episodes(recipe, overrides)
    output = Path(checked.recipe.output).expanduser().absolute()
    check_wishes(output, overwrite, resume)
    if resume and is_finished(output):
        check_finished(output, checked, progress.say)
        return output
    before = find_checkpoint(output, checked, progress.say) if resume else None
    try:
        outcome = _carry_out(checked, output, before, progress)
        with completed(output, outcome.trained.interrupted) as folder:
            _write(outcome, folder)
    except KeyboardInterrupt:
        if said := unfinished(output):
            progress.say(said)
        raise
    return output


def _carry_out(
    checked: CheckedEpisodes, output: Path, before: Checkpoint | None, progress: Progress
) -> EpisodesOutcome:
    began, recipe = time.perf_counter(), checked.recipe
    seed_everything(derived(recipe.seed, "weights"))
    train, test = read_split(checked)
    for note in (*train.notes, *test.notes):
        progress.say(f"note: {note}")
    shape = EpisodeShape(recipe.episodes.ways, recipe.episodes.shots, recipe.episodes.queries)
    sampler = EpisodeSampler(train.labels, train.names, shape, derived(recipe.seed, "episodes"), train.source)
    scored = _samplers(checked, test)
    model = open_episode_model(checked)
    facts = _facts(checked, model, (train, test))
    if before is not None:
        check_same(before, facts, progress.say)
    rows, asked = model.rows(train.content), model.rows(test.content)
    progress.say(f"{train.sentence} to learn from, {test.sentence} to be scored on")
    learner: Learner = checked.learner
    scores = {BEFORE: _scores(*_untrained(model), asked, scored, recipe.evaluation.episodes, progress)}
    learned = Learned(checked.method.attach(model.seams), learner.head(model.width))
    _ready(model, learned)
    progress.say(f"{learner.name}: {count(learned.parameters()):,} parameters train over {checked.method.name}")
    checkpoints = Checkpoints(output, facts, recipe.training.checkpoint_every_steps, progress.say)
    checkpoints.begin(before)
    training = MetaTraining(learner, _optimizer(checked, learned), sampler, recipe.training.episodes_per_step)
    trained = _train(training, learned, rows, recipe.training.steps, (checkpoints, before), progress)
    scores[learner.name] = _scores(learner, learned, asked, scored, recipe.evaluation.episodes, progress)
    seconds = time.perf_counter() - began + (before.state["seconds"] if before else 0.0)
    return EpisodesOutcome(checked, model, learned, (train, test), trained, scores, seconds)


def _ready(model: EpisodeModel, learned: Learned) -> None:
    """Put the head beside the model; nothing drops out while episodes are answered."""
    learned.head.to(next(model.model.parameters()).device)
    model.model.eval()
    learned.delta.train(False)


def _untrained(model: EpisodeModel) -> tuple[Learner, Learned]:
    """Return nearest class means on the model as it is."""
    learner: Learner = find("learners", "prototypical")()
    delta = find("methods", "head-only")().attach(model.seams, "none")
    delta.detach()
    return learner, Learned(delta, learner.head(model.width).to(next(model.model.parameters()).device))


def _samplers(checked: CheckedEpisodes, test: Labelled) -> dict[str, EpisodeSampler]:
    """Make a sampler for every shape that is scored, before anything is trained."""
    settings, seed = checked.recipe.evaluation, derived(checked.recipe.seed, "scored episodes")
    shapes = [EpisodeShape(ways, shots, settings.queries) for ways in settings.ways for shots in settings.shots]
    return {str(shape): EpisodeSampler(test.labels, test.names, shape, seed, test.source) for shape in shapes}


def _scores(
    learner: Learner, learned: Learned, rows: Rows, samplers: dict[str, EpisodeSampler], each: int, progress: Progress
) -> dict[str, EpisodeScore]:
    found = {}
    with progress.stage(f"scoring {learner.name}", each * len(samplers), "episodes") as bar:
        for name, sampler in samplers.items():
            found[name] = score(learner, learned, rows, sampler, each, bar)
    return found


def _optimizer(checked: CheckedEpisodes, learned: Learned) -> Optimizer:
    settings = checked.recipe.training
    rates = TrainingSettings(**settings.model_dump(exclude={"steps", "episodes_per_step"}))
    return Optimizer([(learned.parameters(), rates.learning_rate)], rates, settings.steps)


def _train(
    training: MetaTraining,
    learned: Learned,
    rows: Rows,
    steps: int,
    saving: tuple[Checkpoints, Checkpoint | None],
    progress: Progress,
) -> MetaTrained:
    """Train, and say so when it was stopped."""
    checkpoints, before = saving
    with progress.stage("meta-training", steps * training.per_step, "episodes") as bar:
        found = training.run(learned, rows, steps, bar, checkpoints, before, progress.say)
    if found.to_end:
        progress.say(
            f"meta-training was ended after step {found.steps}; its checkpoint is in {checkpoints.folder}. Go on with "
            "the same command and --resume."
        )
        raise SystemExit(ENDED)
    if found.interrupted:
        more = " Go on with the same command and --resume." if checkpoints.written is not None else ""
        progress.say(f"note: meta-training was interrupted after step {found.steps}. It is scored and saved now.{more}")
    return found


def _write(outcome: EpisodesOutcome, folder: Path) -> None:
    """Write a run folder."""
    checked, model = outcome.checked, outcome.model
    if isinstance(model.model, ConvEncoder):
        model.seams.use(None)  # what is saved as the base are its own parameters
        model.model.save(folder / BASE)
        model.seams.use(outcome.learned.delta.name)
    base = BASE if model.session is None else model.session.source.path
    save_delta(folder / "delta", checked.method, outcome.learned.delta, base)
    head = {name: tensor.detach().cpu().contiguous() for name, tensor in outcome.learned.head.state_dict().items()}
    if head:
        save_tensors(folder / "head.safetensors", head)
    write_text(folder / "recipe.yaml", to_yaml(_settled(checked)))
    write_text(folder / "history.jsonl", "".join(json.dumps(finite(one)) + "\n" for one in outcome.trained.history()))
    write_json(folder / "accuracies.json", _accuracies(outcome))
    found = summary(outcome)
    write_json(folder / "metrics.json", found)
    write_text(folder / "report.html", _report(outcome, found))
    write_json(folder / CLASSES, {"train": outcome.parts[0].names, "test": outcome.parts[1].names})
    write_json(folder / FINGERPRINT, _fingerprint(checked, model, outcome.parts))


def _settled(checked: CheckedEpisodes) -> dict[str, Any]:
    """Return the recipe with every path absolute, so that it means the same anywhere."""
    values = checked.resolved()
    for key in ("train", "test"):
        named = values["data"][key]
        if isinstance(named, str) and checked.path(named).exists():
            values["data"][key] = str(checked.path(named).absolute())
    return values


def _report(outcome: EpisodesOutcome, found: Mapping[str, Any]) -> str:
    before, after = outcome.scores[BEFORE], outcome.scores[outcome.checked.learner.name]
    accuracies = {shape: (before[shape].accuracies, one.accuracies) for shape, one in after.items()}
    classes = {
        name: {shape: (before[shape].by_class[code], one.by_class[code]) for shape, one in after.items()}
        for code, name in enumerate(outcome.parts[1].names)
        if all(code in one.by_class for one in after.values())  # few episodes may not ask every class
    }
    recipe = to_yaml(outcome.checked.resolved())
    return episodes_page(found, outcome.trained.losses, accuracies, classes, recipe)


def _accuracies(outcome: EpisodesOutcome) -> dict[str, dict[str, list[float]]]:
    return {
        name: {shape: one.accuracies.round(6).tolist() for shape, one in found.items()}
        for name, found in outcome.scores.items()
    }


def summary(outcome: EpisodesOutcome) -> dict[str, Any]:
    """Return what `tunesmith episodes --json` prints, without the folder.

    Args:
        outcome: of the run.
    Returns:
        "metrics" by shape of episode, those "before" training and the "gain" over them, and what it cost.
    """
    trained, scores = outcome.trained, {name: one for name, one in outcome.scores.items()}
    own, before = scores[outcome.checked.learner.name], scores[BEFORE]
    bootstrap = outcome.bootstrap
    return {
        "learner": outcome.checked.learner.name,
        "metrics": {shape: one.estimate(bootstrap).plain() for shape, one in own.items()},
        "before": {shape: one.estimate(bootstrap).plain() for shape, one in before.items()},
        "gain": {shape: _gain(one, before[shape], bootstrap).plain() for shape, one in own.items()},
        "episodes": outcome.checked.recipe.evaluation.episodes,
        "trainable_parameters": count(outcome.learned.parameters()),
        "steps": trained.steps,
        "episodes_trained": trained.steps * outcome.checked.recipe.training.episodes_per_step,
        "training_seconds": trained.seconds,
        "seconds": outcome.seconds,
        "interrupted": trained.interrupted,
        "data": {
            name: {"rows": len(part.labels), "classes": len(part.names)}
            for name, part in zip(("train", "test"), outcome.parts, strict=True)
        },
    }


def _gain(first: EpisodeScore, second: EpisodeScore, bootstrap: Bootstrap) -> Estimate:
    """Compare two learners on the same episodes."""
    apart = first.accuracies - second.accuracies
    means = np.array([weights @ apart / len(apart) for weights in bootstrap.weights(len(apart))])
    return Estimate(float(apart.mean()), *bootstrap.interval(means))


def _fingerprint(checked: CheckedEpisodes, model: EpisodeModel, parts: tuple[Labelled, Labelled]) -> dict[str, Any]:
    device: nn.Parameter = next(model.model.parameters())
    return {
        **versions(),
        "device": str(device.device),
        "seed": checked.recipe.seed,
        "base_model": model.name,
        "base_model_hash": model.base_hash,
        "data_hash": [part.content_hash for part in parts],
    }


def _facts(checked: CheckedEpisodes, model: EpisodeModel, parts: tuple[Labelled, Labelled]) -> dict[str, Any]:
    """Say what is trained, for comparison when training goes on."""
    data = {name: part.content_hash for name, part in zip(("train", "test"), parts, strict=True)}
    return {**_fingerprint(checked, model, parts), "code": code(), "recipe": checked.resolved(), "data": data}
