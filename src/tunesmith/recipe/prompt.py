"""The keys of a prompt: what a recipe's `prompt` and a prompt file have in common."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from tunesmith.core.errors import RecipeError, nearest
from tunesmith.core.settings import Settings, setting
from tunesmith.recipe.lines import parse

Text = Annotated[str, Field(min_length=1)]


def _listed(value: Any) -> Any:
    """Let one word be written without a list, and say what YAML makes of yes and no."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            if isinstance(key, bool) or any(
                isinstance(word, bool) for word in (one if isinstance(one, list) else [one])
            ):
                raise ValueError(f"YAML reads yes, no, on and off as {key}: {one}; put such words into quotes")
        return {key: [one] if isinstance(one, str) else one for key, one in value.items()}
    return value


def spelling(text: str) -> str:
    """Return a text as it is compared: case, underscores, hyphens, spacing, invisible and composed characters aside.

    Args:
        text: any.
    Returns:
        The text that spellings of one name share.
    Example:
        >>> spelling("Card_Payment") == spelling("card  payment")
        True
    """
    composed = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    seen = "".join(character for character in composed if unicodedata.category(character) != "Cf")
    return " ".join(seen.replace("_", " ").replace("-", " ").split())


class DemonstrationSettings(Settings):
    """Examples with their answers in front of the row."""

    count: int = setting(0, "So many of them; fewer where they do not fit.", unit="count", ge=0)
    strategy: str = setting("random", "How they are chosen: random, nearest, diverse, balanced, useful.")
    separator: str = setting("\n\n", "Text between two of them.")
    balance: bool = setting(False, "Take as many of each label as of any other, whatever the strategy.")
    template: str = setting(
        "", "How one is written; the lines of the prompt's template about a row when empty, the answer included."
    )
    examples: list[dict[str, str]] = setting(
        [], "Written here instead of chosen from training rows: the row's fields, and 'label'."
    )


class PromptFields(Settings):
    """What a prompt consists of."""

    template: str = setting("{text}", "Text with fields in braces; a field is a column, {text} the text column.")
    description: str = setting("", "What the task is; the template's {description}.")
    background: str = setting("", "What one must know for it; the template's {background}.")
    label_words: Annotated[dict[str, list[Text]], BeforeValidator(_listed)] = setting(
        {}, "Words that stand for each label, one or several; the label's own name when empty."
    )
    label_descriptions: dict[str, str] = setting({}, "What each label means, in a sentence.")
    demonstrations: DemonstrationSettings = setting(DemonstrationSettings(), "Examples with their answers.")

    @field_validator("label_words")
    @classmethod
    def _told_apart(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        _check_names(list(value))
        owner: dict[str, str] = {}
        for label, words in value.items():
            if not words:
                raise ValueError(f"the label '{label}' has no word; give it one, or leave it out for its own name")
            for word in words:
                if not word.strip():
                    raise ValueError(f"a word of the label '{label}' is empty; write what a model would answer")
                other = owner.setdefault(" ".join(word.casefold().split()), label)
                if other != label:
                    raise ValueError(
                        f"the word '{word}' stands for '{other}' and for '{label}', so an answer would say neither; "
                        "give each label words of its own"
                    )
        return value

    @field_validator("label_descriptions")
    @classmethod
    def _described(cls, value: dict[str, str]) -> dict[str, str]:
        _check_names(list(value))
        empty = [label for label, text in value.items() if not text.strip()]
        if empty:
            raise ValueError(f"the description of the label '{empty[0]}' is empty; write a sentence, or leave it out")
        return value


def with_file(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Put what a prompt file says in the place of a recipe's `prompt.file`; the recipe's own keys win.

    Args:
        values: of a recipe.
        folder: the recipe's; the file is looked up there first.
    Returns:
        The values, without `prompt.file`.
    Raises:
        RecipeError: the file cannot be read.
    """
    prompt = values.get("prompt")
    if not isinstance(prompt, Mapping) or not isinstance(prompt.get("file"), str):
        return dict(values)
    path = folder / prompt["file"] if (folder / prompt["file"]).is_file() else Path(prompt["file"]).expanduser()
    own = {key: value for key, value in prompt.items() if key != "file"}
    return {**values, "prompt": {**read_fields(path), **own}}


def read_fields(path: Path) -> dict[str, Any]:
    """Read what a prompt file says.

    Args:
        path: YAML.
    Returns:
        Its keys and values, not checked.
    Raises:
        RecipeError: there is no such file, or it is no YAML mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = nearest(path.name, [item.name for item in path.parent.glob("*.y*ml")])
        hint = f" Did you mean {path.parent / near}?" if near else ""
        raise RecipeError(f"prompt.file: there is no prompt file {path}.{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"prompt.file: {path} cannot be read: {error}. It is a YAML file in UTF-8.") from None
    return parse(text, str(path), "a prompt file", "template: '{text}'")[0]


def _check_names(labels: list[str]) -> None:
    first: dict[str, str] = {}
    for label in labels:
        other = first.setdefault(spelling(label), label)
        if other != label:
            raise ValueError(f"the labels '{other}' and '{label}' differ in spelling only; keep the one of the data")
