"""Recipes of meta-training: what is learned from, by which learner, and on which new classes it is scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from tunesmith.core.errors import RecipeError, unknown
from tunesmith.core.registry import components, find
from tunesmith.core.settings import Settings, setting
from tunesmith.recipe.checking import validated, worded
from tunesmith.recipe.loading import read_values
from tunesmith.recipe.schema import Component

_SHORTHANDS = ("learner", "method", "model")


def _several(value: Any) -> Any:
    """Let a list be written as its only value."""
    return [value] if isinstance(value, int | str) else value


class EpisodesModel(Settings):
    """What turns rows into features."""

    name: str = setting("auto", "auto (conv for images, minilm for texts), conv, or a text model as in other recipes.")
    device: str = setting("auto", "Where to run: auto, cpu, cuda, cuda:1, mps.")
    size: int = setting(28, "Of conv: height and width that images are scaled to.", unit="pixels", ge=4, le=1024)
    colour: bool = setting(False, "Of conv: read images in colour instead of grey.")
    blocks: int = setting(4, "Of conv: blocks, each of which halves height and width.", unit="count", ge=1, le=9)
    channels: int = setting(64, "Of conv: channels of every block.", unit="count", ge=1)


class EpisodesData(Settings):
    """Labelled rows; classes are either learned from or held out."""

    train: str = Field(
        description="Images: a folder or zip with a folder per class. Texts: a file as in other recipes."
    )
    test: str | float = setting(
        0.2, "Other classes to be scored on: a source like train, or the share of its classes that is held out."
    )
    held_out: Annotated[list[str], BeforeValidator(_several)] = setting(
        [], "Classes of train to hold out by name, or pattern with *, in the place of a share."
    )
    rotations: bool = setting(False, "Images: turned by 90, 180 and 270 degrees they are three more classes each.")
    text: str = setting("text", "Texts: column that holds the text.")
    label: str = setting("label", "Texts: column that holds the label.")
    max_tokens: int | None = setting(None, "Texts: longest row; the model's limit when empty.", unit="tokens", ge=2)


class EpisodesShape(Settings):
    """The episodes that are trained on."""

    ways: int = setting(5, "Classes of an episode, N.", unit="count", ge=2)
    shots: int = setting(1, "Support rows per class, K.", unit="count", ge=1)
    queries: int = setting(5, "Asked rows per class.", unit="count", ge=1)


class EpisodesTraining(Settings):
    """How what new tasks start from is learned."""

    steps: int = setting(300, "Optimizer updates.", unit="count", ge=1)
    episodes_per_step: int = setting(2, "Episodes behind an update.", unit="count", ge=1)
    learning_rate: float = setting(1e-3, "Highest learning rate.", gt=0, le=10)
    schedule: Literal["cosine", "linear", "constant"] = setting("cosine", "How the learning rate falls.")
    warmup_fraction: float = setting(0.0, "Share of the steps in which it rises.", ge=0, lt=1)
    weight_decay: float = setting(0.0, "Decoupled weight decay of AdamW.", ge=0)
    clip_norm: float | None = setting(1.0, "Largest gradient norm; none when empty.", gt=0)
    checkpoint_every_steps: int | None = setting(
        None,
        "Steps between two checkpoints that a killed run goes on from; when empty, one in ten seconds at most.",
        unit="count",
        ge=1,
    )


class EpisodesEvaluation(Settings):
    """The episodes of held-out classes that are scored."""

    ways: Annotated[list[int], BeforeValidator(_several)] = setting([5], "Classes of an episode; every one is scored.")
    shots: Annotated[list[int], BeforeValidator(_several)] = setting([1, 5], "Support rows; every one is scored.")
    queries: int = setting(5, "Asked rows per class.", unit="count", ge=1)
    episodes: int = setting(600, "Episodes of every shape.", unit="count", ge=2)
    resamples: int = setting(1000, "Bootstrap resamples behind an interval.", unit="count", ge=100)
    confidence: float = setting(0.95, "Confidence of the intervals.", unit="fraction", gt=0.5, lt=1)


class EpisodesRecipe(Settings):
    """Everything that meta-training needs."""

    learner: Component = setting({"name": "prototypical"}, "The learner by name, or a mapping with its settings.")
    model: EpisodesModel = setting(EpisodesModel(), "The model by name, or a mapping with its settings.")
    data: EpisodesData = Field(description="The labelled rows.")
    method: Component = setting({"name": "auto"}, "What trains in the model; auto: full for conv, else lora.")
    episodes: EpisodesShape = setting(EpisodesShape(), "The training episodes.")
    training: EpisodesTraining = setting(EpisodesTraining(), "The training.")
    evaluation: EpisodesEvaluation = setting(EpisodesEvaluation(), "The evaluation.")
    seed: int = setting(0, "Seed of everything that draws at random.", ge=0, le=2**32 - 1)
    output: str = setting("runs/episodes", "Folder that the run is written to.")

    @property
    def images(self) -> bool:
        """Whether rows are images."""
        return self.model.name == "conv"


@dataclass(frozen=True)
class CheckedEpisodes:
    """A recipe of meta-training whose every value was checked.

    Args:
        recipe: all keys, defaults filled in, model and method decided.
        learner: built from `recipe.learner`.
        method: built from `recipe.method`.
        folder: where relative data paths are looked up first.
    """

    recipe: EpisodesRecipe
    learner: Any
    method: Any
    folder: Path

    def resolved(self) -> dict[str, Any]:
        """Return every key with its value, as it will be saved in the run."""
        values = self.recipe.model_dump(mode="json")
        return {**values, "learner": self.learner.describe(), "method": self.method.describe()}

    def path(self, named: str) -> Path:
        """Find a data path beside the recipe first, then in the current folder.

        Args:
            named: as the user wrote it.
        Returns:
            The path that exists, or the one named.
        """
        beside = self.folder / Path(named).expanduser()
        return beside if beside.exists() else Path(named).expanduser()


def load_episodes(recipe: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> CheckedEpisodes:
    """Read and check a recipe of meta-training.

    Args:
        recipe: a YAML file, or a mapping with the same keys.
        overrides: `key=value` texts, for example "learner.order=second"; they win.
    Returns:
        The checked recipe.
    Raises:
        RecipeError: all mistakes in one message, each with its key and line.
    """
    source, folder, values, lines = read_values(recipe, overrides, _expanded)
    values = _expanded(values)
    problems: list[str] = []
    checked = _check(values, folder, problems)
    if problems or checked is None:
        raise RecipeError(worded(source, problems, lines))
    return checked


def _expanded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a mapping at every depth, with `learner: maml` written out as {name: maml}."""
    copied = {key: _expanded(item) if isinstance(item, Mapping) else item for key, item in values.items()}
    return {
        key: {"name": item} if key in _SHORTHANDS and isinstance(item, str) else item for key, item in copied.items()
    }


def _check(values: dict[str, Any], folder: Path, problems: list[str]) -> CheckedEpisodes | None:
    recipe: EpisodesRecipe | None = validated(EpisodesRecipe, values, "", problems)
    if recipe is None:
        _component("learners", "learner", values.get("learner", {"name": "prototypical"}), problems)
        return None
    recipe = _decided(recipe, folder)
    learner = _component("learners", "learner", recipe.learner, problems)
    method = _component("methods", "method", recipe.method, problems)
    problems.extend(_across(recipe))
    return None if problems else CheckedEpisodes(recipe, learner, method, folder)


def _component(kind: str, key: str, values: Any, problems: list[str]) -> Any:
    if not isinstance(values, dict):
        return None  # said already
    settings = dict(values)
    name = settings.pop("name", None)
    if name not in components(kind):
        problems.append(f"{key}: {unknown(key, str(name), components(kind))}")
        return None
    return validated(find(kind, name), settings, f"{key}.", problems)


def _decided(recipe: EpisodesRecipe, folder: Path) -> EpisodesRecipe:
    """Choose model and method where that was left open, by what the data are."""
    model, method = recipe.model, recipe.method
    if model.name == "auto":
        model = model.model_copy(update={"name": "conv" if _looks_like_images(recipe.data.train, folder) else "minilm"})
    if method.get("name") == "auto":
        method = {**method, "name": "full" if model.name == "conv" else "lora"}
    return recipe.model_copy(update={"model": model, "method": method})


def _looks_like_images(train: str, folder: Path) -> bool:
    """A zip archive holds images, and so does a folder, unless `datasets` wrote it."""
    for place in (folder / train, Path(train).expanduser()):
        if place.is_dir():
            return not any((place / name).is_file() for name in ("state.json", "dataset_dict.json"))
    return train.lower().endswith(".zip")


def _across(recipe: EpisodesRecipe) -> list[str]:
    """Check what one key alone cannot know."""
    data, default, found = recipe.data, EpisodesData.model_fields, list[str]()
    model, plain = recipe.model, EpisodesModel()
    found += [
        f"model.{key}: it is for conv, and the model is '{model.name}'. Leave it out."
        for key in ("size", "colour", "blocks", "channels")
        if not recipe.images and getattr(model, key) != getattr(plain, key)
    ]
    if isinstance(data.test, float) and not 0 < data.test < 1:
        found.append(f"data.test: the share {data.test} must lie between 0 and 1, or be a source of other classes.")
    if data.held_out and data.test != default["test"].default:
        what = "names a source of other classes" if isinstance(data.test, str) else "is the share that is held out"
        found.append(f"data.held_out: data.test {what}; leave one of the two out.")
    unread = ("text", "label", "max_tokens") if recipe.images else ("rotations",)
    kind = "texts" if recipe.images else "images"
    found += [
        f"data.{key}: it is for {kind}. Leave it out." for key in unread if getattr(data, key) != default[key].default
    ]
    for key in ("ways", "shots"):
        values = getattr(recipe.evaluation, key)
        low = 2 if key == "ways" else 1
        if not values or min(values) < low or len(set(values)) < len(values):
            found.append(f"evaluation.{key}: {values}; a list of different whole numbers of at least {low}.")
    return found
