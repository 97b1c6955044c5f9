"""Prompts as data: a template and what it is filled with, read from and written to files that a person can edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml

from tunesmith.core.errors import RecipeError, unknown
from tunesmith.core.files import write_text
from tunesmith.prompts.template import Part, check_fields, parse
from tunesmith.recipe.loading import build_settings
from tunesmith.recipe.prompt import PromptFields, read_fields, spelling

_FRONT = ("description", "background", "demonstrations")  # stand in front of a template that does not place them


@dataclass(frozen=True)
class Rendered:
    """A prompt filled in, with the place of the answer.

    Args:
        before: text before the answer, without white space at its end.
        joiner: white space between it and the answer.
        after: text behind the answer.
    """

    before: str
    joiner: str
    after: str

    def shown(self, answer: str) -> str:
        """Write the whole text.

        Args:
            answer: what stands at its place.
        Returns:
            The text.
        """
        return self.before + self.joiner + answer + self.after


class Prompt(PromptFields):
    """A template, the texts it is filled with, and the words that stand for the labels.

    Fields of the template are columns of the row, `{text}` the text column, and the prompt's own parts:
    `{description}`, `{background}`, `{demonstrations}`, `{labels}` (the words of all labels) and `{label}`, the place
    of the answer; without it the answer follows at the end. Description, background and demonstrations that the
    template does not place stand in front of it, demonstrations in front of its first line about the row. A line of
    which nothing is left but empty parts is left out.

    Example:
        >>> prompt = Prompt(template="Review: {text}\\nIt was {label}.", description="Judge the film.")
        >>> prompt.render({"text": "Great fun."}).shown("good")
        'Judge the film.\\nReview: Great fun.\\nIt was good.'
    """

    own: ClassVar[tuple[str, ...]] = (*_FRONT, "labels", "label")

    @cached_property
    def parts(self) -> list[Part]:
        """The pieces of the template, parts in front of it included."""
        found = parse(self.template, self.own)
        placed = {part.value for part in found if part.kind == "own"}
        missing = [name for name in _FRONT if name not in placed and self._has(name)]
        front = [[Part("own", name)] for name in missing if name != "demonstrations"]
        lines = _lines(found)
        if "demonstrations" in missing:
            first = next((number for number, line in enumerate(lines) if any(part.kind == "row" for part in line)), 0)
            lines[first] = [Part("own", "demonstrations"), *lines[first]]
        return _joined([*front, *lines])

    @cached_property
    def _placed(self) -> bool:
        """Whether the template says where demonstrations stand; else what separates them stands behind them too."""
        return Part("own", "demonstrations") in parse(self.template, self.own)

    def _has(self, name: str) -> bool:
        wanted: Any = getattr(self, name)
        return bool(wanted.count or wanted.examples) if name == "demonstrations" else bool(wanted)

    @cached_property
    def fields(self) -> list[str]:
        """Columns that a row must have."""
        shown = [*self.parts, *self._shown]
        return list(dict.fromkeys(part.value for part in shown if part.kind == "row"))

    @cached_property
    def _shown(self) -> list[Part]:
        """The pieces of a demonstration."""
        if not self.demonstrates:
            return []
        if self.demonstrations.template:
            found = parse(self.demonstrations.template, self.own, "prompt.demonstrations.template")
        else:
            lines = [line for line in _lines(parse(self.template, self.own)) if not _owns(line)]
            found = _joined(lines)
        if not any(part.kind == "row" for part in found):
            self._check_input()
            raise RecipeError(
                "prompt.demonstrations.template: a demonstration would show nothing of its row. Put the row's fields "
                "on a line of their own in prompt.template, or say here how one is written."
            )
        answered = any(part == Part("own", "label") for part in found)
        return found if answered else [*found, Part("text", " "), Part("own", "label")]

    @property
    def shown_fields(self) -> list[str]:
        """Columns that a demonstration shows."""
        return list(dict.fromkeys(part.value for part in self._shown if part.kind == "row"))

    @property
    def demonstrates(self) -> bool:
        """Whether demonstrations stand in it."""
        return self._has("demonstrations")

    def check(self, columns: Sequence[str], label: str | None = None) -> None:
        """Refuse a template that does not show the row, shows its label, or asks for what a row does not have.

        Args:
            columns: that rows have.
            label: the column of the label, where there is one.
        Raises:
            RecipeError: what is wrong, with the nearest name.
        """
        self._check_input()
        places = sum(part == Part("own", "label") for part in self.parts)
        if places > 1:
            raise RecipeError(f"prompt.template: {{label}} stands {places} times in it; an answer has one place.")
        if label in self.fields:
            raise RecipeError(
                f"prompt.template: the field '{label}' is the label column: the model would read the answer. Its place "
                "is written {label}."
            )
        check_fields(self.fields, [*columns, *self.own])

    def _check_input(self) -> None:
        if not any(part.kind == "row" for part in self.parts):
            raise RecipeError(
                f"prompt.template: '{self.template}' has no input field, so every row would read the same. Put "
                "{text} or another column into it."
            )

    # Labels ---------------------------------------------------------------------------------------------------

    def words(self, label: str) -> list[str]:
        """Return the words that stand for a label.

        Args:
            label: as in the data.
        Returns:
            At least one; its own name, underscores as spaces, where the prompt gives none.
        """
        return self.label_words.get(label) or [label.replace("_", " ").strip() or label]

    def words_of(self, labels: Sequence[str]) -> list[list[str]]:
        """Return the words of all labels, each told from the others.

        Args:
            labels: as in the data.
        Returns:
            Per label, its words.
        Raises:
            RecipeError: a label without words among some that have, labels or words that are spelled alike.
        """
        missing = [label for label in labels if self.label_words and label not in self.label_words]
        if missing:
            raise RecipeError(
                f"prompt.label_words: {unknown('label', missing[0], self.label_words)}. Give every label of the data "
                "its words, or none."
            )
        owner: dict[str, str] = {}
        for label in labels:
            for word in self.words(label):
                other = owner.setdefault(spelling(word), label)
                if other != label:
                    raise RecipeError(
                        f"prompt.label_words: '{word}' stands for the labels '{other}' and '{label}', letter case, "
                        "hyphens and spacing aside; give each words of its own."
                    )
        return [self.words(label) for label in labels]

    def check_labels(self, labels: Sequence[str]) -> None:
        """Refuse descriptions and demonstrations of labels that there are not.

        Args:
            labels: all of them.
        Raises:
            RecipeError: the first such label, with the nearest name.
        """
        named = [("label_descriptions", label) for label in self.label_descriptions]
        for number, example in enumerate(self.demonstrations.examples):
            named.append((f"demonstrations.examples[{number}]", example.get("label", "")))
        for place, label in named:
            if label and label not in labels:
                raise RecipeError(f"prompt.{place}: {unknown('label', label, labels)}. Correct it, or leave it out.")

    def listed(self, labels: Sequence[str]) -> str:
        """Write what {labels} stands for.

        Args:
            labels: in their order.
        Returns:
            Their first words with commas; where labels are described, one line for each.
        """
        words = {label: self.words(label)[0] for label in labels}
        if not any(label in self.label_descriptions for label in labels):
            return ", ".join(words.values())
        told = {label: self.label_descriptions.get(label, "") for label in labels}
        return "\n".join(f"{words[label]}: {told[label]}".removesuffix(": ") for label in labels)

    # Text -----------------------------------------------------------------------------------------------------

    def render(
        self, row: Mapping[str, str], labels: Sequence[str] = (), demonstrations: Sequence[str] = ()
    ) -> Rendered:
        """Fill in one row.

        Args:
            row: a value for every field.
            labels: all of them, for {labels}.
            demonstrations: as `demonstration` wrote them, in the order of the text.
        Returns:
            The text before and behind the answer.
        """
        own = {"description": self.description, "background": self.background, "labels": self.listed(labels)}
        behind = [""] if demonstrations and not self._placed else []
        own["demonstrations"] = self.demonstrations.separator.join([*demonstrations, *behind])
        pieces = _filled(self.parts, {**row}, own)
        if None not in pieces:
            return Rendered("".join(filter(None, pieces)).rstrip(), " ", "")
        place = pieces.index(None)
        before, after = ("".join(filter(None, some)) for some in (pieces[:place], pieces[place + 1 :]))
        return Rendered(before.rstrip(), before[len(before.rstrip()) :], after.rstrip())

    def demonstration(self, row: Mapping[str, str], label: str) -> str:
        """Write one demonstration.

        Args:
            row: a value for every field.
            label: its answer.
        Returns:
            The text, the label's first word at the place of the answer.
        """
        pieces = _filled(self._shown, {**row}, {})
        return "".join(self.words(label)[0] if piece is None else piece for piece in pieces).strip()

    def row_text(self, row: Mapping[str, str], labels: Sequence[str] = ()) -> str:
        """Write the row alone, for models that compare it with the labels' wordings.

        Args:
            row: a value for every field.
            labels: all of them, for {labels}.
        Returns:
            The text up to the row's last field, without its answer.
        """
        own = {"description": self.description, "background": self.background, "labels": self.listed(labels)}
        return "".join(piece or "" for piece in _filled(self._halves[0], {**row}, own)).strip()

    def wording(self, answer: str) -> str:
        """Write an answer in the prompt's own words.

        Args:
            answer: a label's word.
        Returns:
            What follows the row's last field, with the answer in its place; the answer alone without such a place.
        """
        own = {"description": self.description, "background": self.background}
        return "".join(answer if piece is None else piece for piece in _filled(self._halves[1], {}, own)).strip()

    @cached_property
    def _halves(self) -> tuple[list[Part], list[Part]]:
        parts, answer = self.parts, Part("own", "label")
        last = max(number for number, part in enumerate(parts) if part.kind == "row") + 1
        if answer in parts[last:]:
            return parts[:last], parts[last:]
        return [part for part in parts if part != answer], [answer]

    def changed(self, **values: Any) -> Self:
        """Return the prompt with other values.

        Args:
            **values: of its fields; of `demonstrations`, those of its settings that change.
        Returns:
            A new prompt, checked.
        Raises:
            RecipeError: a value that is not allowed.
        """
        own = {name: getattr(self, name) for name in type(self).model_fields}
        if isinstance(values.get("demonstrations"), Mapping):
            values["demonstrations"] = {**self.demonstrations.model_dump(), **values["demonstrations"]}
        found: Self = build_settings(type(self), {**own, **values}, "prompt")
        return found

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy as `changed` does: what was worked out from the old values does not go along."""
        return self.changed(**(update or {}))

    # Files ----------------------------------------------------------------------------------------------------

    @classmethod
    def of(cls, fields: PromptFields) -> Self:
        """Take the prompt out of a recipe's settings.

        Args:
            fields: of the recipe's `prompt`.
        Returns:
            The prompt.
        """
        return cls(**{name: getattr(fields, name) for name in PromptFields.model_fields})

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a prompt file.

        Args:
            path: YAML.
        Returns:
            The prompt.
        Raises:
            RecipeError: no such file, or a mistake in it.
        """
        found: Self = build_settings(cls, read_fields(Path(path)), str(path))
        return found

    def write(self, path: str | Path) -> None:
        """Write a prompt file; what is as by default is left out.

        Args:
            path: YAML.
        """
        write_text(Path(path), self.to_yaml())

    def to_yaml(self) -> str:
        """Return what a prompt file holds."""
        values = {"template": self.template, **self.model_dump(mode="json", exclude_defaults=True)}
        text: str = yaml.dump(values, Dumper=_Readable, sort_keys=False, allow_unicode=True, width=10**6)
        return text


class _Readable(yaml.SafeDumper):
    """Writes texts of several lines as lines."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    lines = "\n" in value and not any(line != line.rstrip() for line in value.split("\n"))
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if lines and value.strip() else None)


_Readable.add_representer(str, _text)


def _lines(parts: Sequence[Part]) -> list[list[Part]]:
    """Cut pieces into lines."""
    found: list[list[Part]] = [[]]
    for part in parts:
        texts = part.value.split("\n") if part.kind == "text" else [part.value]
        for number, text in enumerate(texts):
            if number:
                found.append([])
            if text:
                found[-1].append(Part(part.kind, text))
    return found


def _joined(lines: Sequence[Sequence[Part]]) -> list[Part]:
    """Put lines together again."""
    return [part for line in lines for part in (Part("text", "\n"), *line)][1:]


def _owns(line: Sequence[Part]) -> bool:
    """Say whether a line holds a part of the prompt other than the answer."""
    return any(part.kind == "own" and part.value != "label" for part in line)


def _filled(parts: Sequence[Part], row: Mapping[str, str], own: Mapping[str, str]) -> list[str | None]:
    """Fill in fields; None stands at the place of the answer."""
    lines = []
    for line in _lines(parts):
        bare = _owns(line) and all(part.kind == "own" or not part.value.strip() for part in line)
        if bare and not any(own.get(part.value, "x") for part in line if part.kind == "own"):
            continue
        lines.append([_value(part, row, own) for part in line])
    return [piece for line in lines for piece in ("\n", *line)][1:]


def _value(part: Part, row: Mapping[str, str], own: Mapping[str, str]) -> str | None:
    if part == Part("own", "label"):
        return None
    return {"text": part.value, "row": row.get(part.value, ""), "own": own.get(part.value, "")}[part.kind]
