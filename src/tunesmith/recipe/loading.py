"""From a file, a mapping and overrides to a checked recipe, with all mistakes reported at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from tunesmith.core.errors import RecipeError, nearest, unknown
from tunesmith.core.registry import components, find
from tunesmith.recipe.checking import validated, worded
from tunesmith.recipe.data import across_data
from tunesmith.recipe.ensembles import across_ensembles, across_members, with_combination
from tunesmith.recipe.images import across_images
from tunesmith.recipe.labelling import across_labels
from tunesmith.recipe.lines import parse, value_of
from tunesmith.recipe.listed import across_lists, build_lists, with_places
from tunesmith.recipe.prompt import PromptFields, with_file
from tunesmith.recipe.schema import DataSettings, Recipe
from tunesmith.recipe.schemes import across_peers, across_schemes
from tunesmith.recipe.starting import inherit_values
from tunesmith.recipe.teaching import across_teacher
from tunesmith.recipe.training import OF_A_PASS, across_training
from tunesmith.recipe.unseen import across_unseen

# The keys that name a component, and its kind; all but the first two may be left empty.
COMPONENTS = {
    "task": "tasks",
    "method": "methods",
    "semi_supervised": "semi_supervised",
    "dual_learning": "dual_learning",
    "attributes": "attributes",
    "ensemble": "ensembles",
    "combine": "combinations",
}
_SHORTHANDS = ("model", *COMPONENTS)


@dataclass(frozen=True)
class Checked:
    """A recipe whose every value was checked.

    Args:
        recipe: all keys, defaults filled in.
        task: the task, built from `recipe.task`.
        method: the method, built from `recipe.method`.
        folder: where relative data paths are looked up first.
        candidates: the recipe in each variant, those of an ensemble's members too; empty when it stands alone.
        listed: components that are given as lists, by key below `data`.
        scheme: how more is learned from than the labelled rows, built from `semi_supervised` or `dual_learning`;
            None where both are empty.
        attributes: how classes without a training row are told, built from `attributes`; None where it is empty.
        ensemble: how members are made, built from `ensemble`; None where it is empty.
        combine: what is kept of candidates or members, built from `combine`.
    """

    recipe: Recipe
    task: Any
    method: Any
    folder: Path
    candidates: tuple[Checked, ...] = ()
    listed: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    scheme: Any = None
    attributes: Any = None
    ensemble: Any = None
    combine: Any = None

    def resolved(self) -> dict[str, Any]:
        """Return every key with its value, as it will be saved in the run."""
        values = self.recipe.model_dump(mode="json")
        values["task"] = self.task.describe()
        values["method"] = self.method.describe()
        if self.scheme is not None:
            values[type(self.scheme).section] = self.scheme.describe()
        if self.attributes is not None:
            values["attributes"] = self.attributes.describe()
        if self.ensemble is not None:
            values["ensemble"] = self.ensemble.describe()
        values["combine"] = self.combine.describe()
        values["data"].update({key: [one.describe() for one in some] for key, some in self.listed.items()})
        return values


def to_yaml(values: Mapping[str, Any]) -> str:
    """Write plain values as YAML, keys in their order.

    Args:
        values: plain.
    Returns:
        The text.
    """
    text: str = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    return text


def load_recipe(recipe: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Checked:
    """Read and check a recipe.

    Args:
        recipe: a YAML file, or a mapping with the same keys.
        overrides: `key=value` texts, for example "method.rank=16"; they win.
    Returns:
        The checked recipe.
    Raises:
        RecipeError: all mistakes in one message, each with its key and line.
    """
    source, folder, values, lines = read_values(recipe, overrides, expanded)
    values = with_places(with_file(inherit_values(values, folder), folder), folder)
    values = with_combination(expanded(values))
    problems: list[str] = []
    checked = _check(values, problems, folder)
    if checked is not None:
        problems.extend(across_peers(checked.scheme, checked.candidates))
    if problems or checked is None:
        raise RecipeError(worded(source, problems, lines))
    return checked


def read_values(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str],
    expand: Callable[[Mapping[str, Any]], dict[str, Any]],
) -> tuple[str, Path, dict[str, Any], dict[str, int]]:
    """Read a recipe's keys, the overrides in their places.

    Args:
        recipe: a YAML file, or a mapping with the same keys.
        overrides: `key=value` texts; they win.
        expand: writes shorthands out.
    Returns:
        What to call the recipe, the folder of its paths, its keys, and the line of each.
    Raises:
        RecipeError: it cannot be read.
    """
    if isinstance(recipe, Mapping):
        source, folder, lines = "recipe", Path.cwd(), dict[str, int]()
        values = expand(recipe)
    elif not isinstance(recipe, str | Path):
        raise RecipeError(f"a recipe is a YAML file or a mapping with the same keys, not {repr(recipe)[:80]}.")
    else:
        source, folder = str(recipe), Path(recipe).parent.resolve()
        raw, lines = parse(_read(Path(recipe)), source)
        values = expand(raw)
    for text in overrides:
        lines[_override(values, text)] = 0  # 0: not in the file
    return source, folder, values, lines


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        folder = path.parent
        recipes = sorted(item.name for item in folder.glob("*.y*ml")) if folder.is_dir() else []
        near = nearest(path.name, recipes)
        hint = f" Did you mean {folder / near}?" if near else ""
        raise RecipeError(f"there is no recipe file {path}.{hint}") from None
    except (UnicodeDecodeError, IsADirectoryError, PermissionError) as error:
        raise RecipeError(f"the recipe {path} cannot be read: {error}. A recipe is a YAML file in UTF-8.") from None


def expanded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a mapping at every depth, with `method: lora` written out as {name: lora}.

    Args:
        values: keys of a recipe.
    Returns:
        The copy.
    """
    copied = {key: expanded(item) if isinstance(item, Mapping) else item for key, item in values.items()}
    for key in _SHORTHANDS:
        if isinstance(copied.get(key), str):
            copied[key] = {"name": copied[key]}
    return copied


def _override(values: dict[str, Any], text: str) -> str:
    key, sign, written = text.partition("=")
    if not sign or not key:
        raise RecipeError(
            f"'{text}' is not an override; write key=value, for example method.rank=16. A value with spaces needs "
            "quotes around the whole: 'method={name: lora, rank: 16}'."
        )
    *parents, leaf = key.split(".")
    place: Any = values
    for parent in parents:
        if place.get(parent) is None:  # not there, or a key with nothing behind it
            place[parent] = {}
        place = place[parent]
        if not isinstance(place, dict):
            raise RecipeError(f"override '{text}': '{parent}' is a single value, so it has no key below it.")
    value = value_of(written)
    if not parents and leaf in _SHORTHANDS and isinstance(value, str):
        value = {"name": value}
    place[leaf] = value
    return key


def _check(values: dict[str, Any], problems: list[str], folder: Path) -> Checked | None:
    recipe = validated(Recipe, values, "", problems)
    parts = {}
    for key, kind in COMPONENTS.items():
        default = Recipe.model_fields[key].default
        given = values.get(key, default)
        if isinstance(given, dict):
            named = {**({} if default is None else {"name": default["name"]}), **given}
            parts[key] = _component(kind, key, named, problems)
    listed = build_lists(values.get("data"), _component, problems)
    if recipe is not None and not problems:
        problems.extend([*_across(recipe, parts["task"]), *across_lists(listed, recipe.data, parts["task"])])
        problems.extend(across_schemes(recipe, parts))
        problems.extend(across_unseen(recipe, parts))
        problems.extend(across_ensembles(recipe, parts))
        problems.extend(across_images(recipe, parts["task"], listed))
    if problems or recipe is None:
        return None
    scheme = parts.get("semi_supervised") or parts.get("dual_learning")
    alone = Checked(
        recipe, parts["task"], parts["method"], folder, (), listed, scheme, parts.get("attributes"),
        parts.get("ensemble"), parts["combine"],
    )  # fmt: skip
    return replace(alone, candidates=tuple(_variants(alone, values, problems)))


def _variants(alone: Checked, values: dict[str, Any], problems: list[str]) -> list[Checked]:
    """Check the recipe in each variant, and what the variants must have in common."""
    recipe, making = alone.recipe, alone.ensemble
    given = recipe.candidates if making is None else making.variants(recipe.seed)
    place = "candidates[{}]." if making is None else "ensemble: member {}: "
    variants = [
        _candidate(values, variant, place.format(number), problems, alone.folder)
        for number, variant in enumerate(given)
    ]
    checked = [found for found in variants if found is not None]
    for number, found in enumerate(checked):
        same = next((other for other in range(number) if _alike(checked[other], found)), None)
        if same is not None and not problems:
            problems.append(f"candidates[{number}]: the same as candidates[{same}]; change a setting or the seed.")
    problems.extend(across_members(recipe, alone.combine, checked))
    return checked


def _alike(first: Checked, second: Checked) -> bool:
    settings = (first.method.describe(), first.recipe.training, first.recipe.seed)
    return settings == (second.method.describe(), second.recipe.training, second.recipe.seed)


_VARIABLE = ("method", "training", "seed")  # what a candidate may set for itself


def _candidate(
    values: Mapping[str, Any], variant: Mapping[str, Any], place: str, problems: list[str], folder: Path
) -> Checked | None:
    """Check the recipe with one candidate's values in the place of its own."""
    own: dict[str, Any] = {}
    twice = _twice(variant)
    if twice is not None:
        problems.append(f"{place}{twice}: given twice, nested and with dots; keep one.")
        return None
    for key, value in variant.items():
        _set(own, str(key).split("."), value)
    own = expanded(own)
    foreign = [key for key in own if key not in _VARIABLE]
    training = own.get("training", {})
    foreign += [f"training.{key}" for key in OF_A_PASS if isinstance(training, dict) and key in training]
    if foreign:
        problems.append(f"{place}{foreign[0]}: candidates share it; a candidate may set method, training and seed.")
        return None
    merged = expanded({**values, "candidates": [], "ensemble": None, "combine": "best"})
    for key, value in own.items():
        together = isinstance(value, dict) and isinstance(merged.get(key), dict)
        if together and key == "method":
            together = value.get("name", _name(merged, key)) == _name(merged, key)
        merged[key] = {**merged[key], **value} if together else value
    if "seed" in own and isinstance(merged.get("data"), dict) and merged["data"].get("seed") is None:
        merged["data"]["seed"] = values.get("seed", 0)  # candidates share the data, so also what is held out of it
    found: list[str] = []
    checked = _check(merged, found, folder)
    problems.extend(f"{place}{problem}" for problem in found)
    return checked


def _twice(variant: Mapping[str, Any]) -> str | None:
    """Find a key that a candidate sets both nested and with dots."""
    seen: set[str] = set()
    for key in _leaves(variant):
        if key in seen:
            return key
        seen.add(key)
    return None


def _leaves(values: Mapping[str, Any], above: str = "") -> list[str]:
    """List the dotted keys of all values; `method: lora` sets its name."""
    found = []
    for key, value in values.items():
        path = f"{above}{key}"
        if isinstance(value, Mapping):
            found += _leaves(value, f"{path}.")
        else:
            found.append(f"{path}.name" if path in _SHORTHANDS and isinstance(value, str) else path)
    return found


def _name(values: Mapping[str, Any], key: str) -> Any:
    """Return the name of a component as a recipe would use it."""
    return values.get(key, {}).get("name", Recipe.model_fields[key].default["name"])


def _set(values: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    """Set a value at a path of keys; a name may be followed by settings."""
    *parents, leaf = keys
    for parent in parents:
        inner = values.get(parent, {})
        values[parent] = inner = {"name": inner} if isinstance(inner, str) else inner
        values = inner
    values[leaf] = (
        {**values[leaf], "name": value} if isinstance(values.get(leaf), dict) and isinstance(value, str) else value
    )


def _component(kind: str, key: str, values: dict[str, Any], problems: list[str]) -> Any:
    settings = dict(values)
    name = settings.pop("name", "")
    available = {**components(kind), **(components("choosers") if kind == "methods" else {})}
    if not isinstance(name, str) or name not in available:
        problems.append(f"{key}: {unknown(kind.removesuffix('s'), str(name), available)}")
        return None
    return validated(available[name], settings, f"{key}.", problems)


def _across(recipe: Recipe, task: Any) -> list[str]:
    """Check what one key alone cannot know."""
    found = []
    for kind, names in (("metrics", recipe.evaluation.metrics), ("baselines", recipe.evaluation.baselines or [])):
        for name in names or []:
            fitting = {key for key, one in components(kind).items() if one.reads in task.scored_by}
            if name not in fitting:
                found.append(f"evaluation.{kind}: {unknown(kind[:-1], name, fitting)}")
    deciding = {key for key, one in components("metrics").items() if one.reads != "answers"}
    allowed = ["auto", "validation loss", "last", *deciding.intersection(recipe.evaluation.metrics or task.metrics)]
    if recipe.training.best not in allowed:
        found.append(f"training.best: {unknown('choice', recipe.training.best, allowed)}")
    found.extend(_across_answers(recipe, task))
    found.extend(across_data(recipe.data))
    found.extend(_across_columns(recipe.data, task))
    found.extend(_across_texts(recipe, task))
    found.extend(_across_prompt(recipe, task))
    found.extend(_across_model(recipe, task))
    found.extend(across_labels(recipe, task))
    found.extend(across_training(recipe, task))
    found.extend(across_teacher(recipe, task))
    return found


def _across_answers(recipe: Recipe, task: Any) -> list[str]:
    """Refuse metrics of answers where no row is answered."""
    given = recipe.evaluation.metrics or []
    wanting = [name for name in given if name in components("metrics") and find("metrics", name).reads == "answers"]
    if not wanting or getattr(task, "answered_rows", None) != 0:
        return []
    return [
        f"evaluation.metrics: {', '.join(wanting)} need answers, and task.answered_rows=0 lets the model write none. "
        "Raise it, or leave them out."
    ]


def _across_columns(data: DataSettings, task: Any) -> list[str]:
    """Refuse columns that the task would not read."""
    if task.family != "generating":
        return []
    conversations = hasattr(task, "columns")
    instead = "columns have the names of its formats (task.columns), or task.source and task.target"
    instead, unread = (instead, ("text", "label")) if conversations else ("its rows are texts", ("label",))
    return [
        f"data.{key}: the task '{task.name}' does not read it; {instead}."
        for key in (*unread, "soft_labels")
        if getattr(data, key) != DataSettings.model_fields[key].default
    ]


def _across_texts(recipe: Recipe, task: Any) -> list[str]:
    """Refuse what a task that predicts tokens would not read: a rate of a head, columns of files without any."""
    if task.family != "generating":
        return []
    found, data = list[str](), recipe.data
    if recipe.training.head_learning_rate is not None:
        found.append(f"training.head_learning_rate: the task '{task.name}' has no head of its own. Leave it out.")
    plain = tuple(suffix for one in components("readers").values() if one.only_column for suffix in one.suffixes)
    bare = not data.columns and data.train.lower().endswith(plain)
    if bare and data.text != "text":
        found.append(f"data.text: {data.train} is plain text without columns. Leave it out.")
    if not bare and getattr(task, "documents", "file") == "line":
        found.append(f"task.documents: it is for files of plain text ({', '.join(plain)}); a row of {data.train} is "
                     "one text. Leave it out.")  # fmt: skip
    return found


def _across_prompt(recipe: Recipe, task: Any) -> list[str]:
    """Refuse prompt settings that the task would not read."""
    chat, answers = ("chat", "system", "end_token"), ("label_words", "label_descriptions", "demonstrations")
    unread, instead = {
        "generating": ((*PromptFields.model_fields, "file", "templates"), "rows are written by prompt.chat"),
        "labelling": ((*chat, *answers), "its prompt is prompt.template"),
        "prompting": (chat, "its prompt is prompt.template"),
    }[task.family]
    default = type(recipe.prompt)()
    return [
        f"prompt.{key}: the task '{task.name}' does not read it; {instead}."
        for key in unread
        if getattr(recipe.prompt, key) != getattr(default, key)
    ]


def _across_model(recipe: Recipe, task: Any) -> list[str]:
    """Narrow products are a float32 model's. A new model is random: trained whole, by a task that predicts tokens."""
    found, precision, dtype = list[str](), recipe.training.precision, recipe.model.dtype
    fitting = ("float32", "bfloat16") if precision == "float8" else ("float32",)
    if precision != "float32" and dtype not in fitting:
        found.append(
            f"training.precision: {precision} is for the products of a {' or '.join(fitting)} model, and model.dtype "
            f"is {dtype}. Leave one of the two out."
        )
    if recipe.model.new is None:
        return found
    if "name" in recipe.model.model_fields_set:
        found.append(f"model.new: model.name={recipe.model.name} is a model that exists; leave one of the two out.")
    if task.family != "generating":
        found.append(f"model.new: the task '{task.name}' needs a pretrained model. Choose text-generation.")
    if recipe.method["name"] != "full":
        found.append(
            f"model.new: the weights are random, so method '{recipe.method['name']}' would tune noise; take full."
        )
    return found


def build_component(kind: str, name: str, settings: Mapping[str, Any]) -> Any:
    """Build one component with settings, with the same errors as in a recipe.

    Args:
        kind: one of the registry's kinds.
        name: of the component.
        settings: of it.
    Returns:
        The component.
    Raises:
        RecipeError: unknown name or setting, or a value out of bounds.
    """
    return build_settings(find(kind, name), settings, name)


def build_settings(kind: type[Any], values: Mapping[str, Any], what: str) -> Any:
    """Build settings given in Python, with the same errors as in a recipe.

    Args:
        kind: a Settings class.
        values: of its fields.
        what: to call them in messages.
    Returns:
        The settings.
    Raises:
        RecipeError: unknown setting, or a value out of bounds.
    """
    problems: list[str] = []
    built = validated(kind, dict(values), "", problems)
    if problems:
        raise RecipeError(worded(what, [problem.removeprefix("recipe: ") for problem in problems], {}))
    return built
