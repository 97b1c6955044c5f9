"""Prompts as data: what they render, what they refuse, and files."""

from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.errors import RecipeError
from tunesmith.prompts.fitting import fit
from tunesmith.prompts.prompt import Prompt, Rendered

ROW = {"text": "Great fun.", "title": "Up"}


def test_parts_stand_where_the_template_puts_them() -> None:
    prompt = Prompt(
        template="{background} {description}\n{labels}\n{demonstrations}\n{title}: {text}\nIt was {label}!",
        description="Judge the film.",
        background="Films are art.",
        label_words={"pos": ["good", "great"], "neg": "bad"},
        demonstrations={"count": 1, "template": "{title} was {label}."},
    )
    shown = prompt.demonstration({"title": "Down", "text": "-"}, "neg")
    found = prompt.render(ROW, ["pos", "neg"], [shown])
    before = "Films are art. Judge the film.\ngood, bad\nDown was bad.\nUp: Great fun.\nIt was"
    assert found == Rendered(before, " ", "!")
    assert found.shown("good").endswith("It was good!")


def test_what_the_template_does_not_place_stands_in_front() -> None:
    prompt = Prompt(
        template="Review: {text}\nMood:", description="Judge.", background="Art.", demonstrations={"count": 2}
    )
    shown = [prompt.demonstration({"text": text}, label) for text, label in (("a", "pos"), ("b", "neg"))]
    assert shown == ["Review: a\nMood: pos", "Review: b\nMood: neg"]
    found = prompt.render(ROW, [], shown).before
    assert found == "Judge.\nArt.\nReview: a\nMood: pos\n\nReview: b\nMood: neg\n\nReview: Great fun.\nMood:"
    assert prompt.render(ROW).before == "Judge.\nArt.\nReview: Great fun.\nMood:"


def test_lines_of_empty_parts_are_left_out() -> None:
    prompt = Prompt(template="{description}\n\n{text}\n{background}{labels}\nAnswer: {label}")
    assert prompt.render(ROW).before == "\nGreat fun.\nAnswer:"


def test_a_column_may_be_called_like_a_part() -> None:
    prompt = Prompt(template="{row.label}: {row.description} {text}{{x}}")
    assert prompt.fields == ["label", "description", "text"]
    assert prompt.render({"label": "A", "description": "B", "text": "C"}).before == "A: B C{x}"


def test_labels_with_descriptions_are_listed_line_by_line() -> None:
    prompt = Prompt(label_descriptions={"card_lost": "The card is gone."})
    assert prompt.listed(["card_lost", "other"]) == "card lost: The card is gone.\nother"


def test_the_answers_wording_is_what_follows_the_row() -> None:
    prompt = Prompt(template="{text} This is about {label}.")
    assert prompt.row_text(ROW) == "Great fun."
    assert prompt.wording("films") == "This is about films."
    assert Prompt(template="It says: {text}").wording("films") == "films"


@pytest.mark.parametrize(
    ("values", "columns", "message"),
    [
        ({"template": "{description}", "description": "x"}, ["text"], "has no input field"),
        ({"template": "{tetx}"}, ["text"], "unknown field 'tetx'; did you mean 'text'"),
        ({"template": "{text} {demonstration}"}, ["text"], "did you mean 'demonstrations'"),
        ({"template": "{label} {text} {label}"}, ["text"], "stands 2 times"),
        ({"template": "{text} {mood}"}, ["text", "mood"], "the model would read the answer"),
        ({"template": "{text"}, ["text"], "a single"),
        ({"template": "{label}", "demonstrations": {"count": 2}}, ["text"], "prompt.template: '{label}' has no input"),
    ],
)
def test_templates_that_cannot_ask_are_refused(values: dict[str, Any], columns: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Prompt(**values).check(columns, "mood")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label_words": {"a": ["yes"], "b": ["Yes "]}}, "stands for 'a' and for 'b'"),
        ({"label_words": {"a": []}}, "has no word"),
        ({"label_words": {"a": True}}, "YAML reads yes, no, on and off as a: True; put such words into quotes"),
        ({"label_words": {"a": ["  "]}}, "is empty"),
        ({"label_words": {"Card_Lost": "x", "card lost": "y"}}, "differ in spelling only"),
        ({"label_words": {"caf\u00e9": "x", "cafe\u0301": "y"}}, "differ in spelling only"),
        ({"label_words": {"card": "x", "card\u200b": "y"}}, "differ in spelling only"),
        ({"label_descriptions": {"a": " "}}, "description of the label 'a' is empty"),
        ({"demonstrations": {"count": -1}}, "greater than or equal to 0"),
        ({"templat": "x"}, "did you mean 'template'"),
    ],
)
def test_a_prompt_file_with_a_mistake_is_refused(tmp_path: Path, values: dict[str, object], message: str) -> None:
    import yaml

    path = tmp_path / "prompt.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(RecipeError, match=message):
        Prompt.read(path)


def test_words_must_belong_to_every_label_or_none() -> None:
    with pytest.raises(RecipeError, match="unknown label 'negative'; did you mean 'negativ'"):
        Prompt(label_words={"positive": "good", "negativ": "bad"}).words_of(["positive", "negative"])
    with pytest.raises(RecipeError, match="stands for the labels"):
        Prompt().words_of(["card-lost", "card_lost"])


def test_a_file_gives_the_same_prompt_again(tmp_path: Path) -> None:
    prompt = Prompt(
        template="{description}\n{text}\n→ {label}", description="One.\nTwo: {x}", label_words={"是": ["好", "很好"]},
        demonstrations={"count": 2, "examples": [{"text": "a", "label": "是"}]},
    )  # fmt: skip
    prompt.write(tmp_path / "p.yaml")
    assert Prompt.read(tmp_path / "p.yaml") == prompt
    assert "  One.\n  Two: {x}\n" in (tmp_path / "p.yaml").read_text(encoding="utf-8"), "lines stay lines"
    with pytest.raises(RecipeError, match="there is no prompt file"):
        Prompt.read(tmp_path / "q.yaml")


def test_a_changed_prompt_forgets_what_it_was() -> None:
    prompt = Prompt(template="{text}", description="One.")
    assert prompt.render(ROW).before.startswith("One.")
    assert prompt.changed(description="Two.").render(ROW).before.startswith("Two.")
    assert prompt.model_copy(update={"template": "{title}"}).fields == ["title"]


def count(rendered: Rendered) -> int:
    return len(rendered.before.split())


def test_demonstrations_go_before_the_row_does() -> None:
    prompt = Prompt(template="{text}", demonstrations={"count": 3})
    shown = ["one a b c", "two a b c", "three a b c"]

    def fill(row: dict[str, str], some: list[str]) -> Rendered:
        return prompt.render(row, [], some)

    row = {"text": "w1 w2 w3 w4"}
    found = fit(fill, row, ["text"], shown, count, 13)  # type: ignore[arg-type]
    assert (found.shown, found.dropped, found.lost) == (2, 1, 0)
    assert found.rendered.before == "two a b c\n\none a b c\n\nw1 w2 w3 w4", "the most fitting stands last"
    short = fit(fill, row, ["text"], shown, count, 3)  # type: ignore[arg-type]
    assert (short.shown, short.rendered.before, short.lost) == (0, "w1 w2 w3", 2)
    with pytest.raises(RecipeError, match="nothing is left for the row"):
        fit(lambda row, some: Rendered("a b c " + row["text"], "", ""), row, ["text"], [], count, 3)


def test_what_is_said_of_other_labels_is_refused() -> None:
    Prompt(label_descriptions={"a": "An a."}).check_labels(["a", "b"])
    with pytest.raises(RecipeError, match=r"label_descriptions: unknown label 'goood'; did you mean 'good'"):
        Prompt(label_descriptions={"goood": "Fine."}).check_labels(["good", "bad"])
    shown = {"examples": [{"text": "x", "label": "bda"}]}
    with pytest.raises(RecipeError, match=r"examples\[0\]: unknown label 'bda'; did you mean 'bad'"):
        Prompt(demonstrations=shown).check_labels(["good", "bad"])
