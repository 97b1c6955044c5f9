import pytest

from tunesmith.core.errors import RecipeError
from tunesmith.prompts.template import Template


def test_rendering() -> None:
    template = Template("{{json}} {title}: {text} {text}")
    assert template.fields == ["title", "text"]
    assert template.render({"title": "A", "text": "{b}"}) == "{json} A: {b} {b}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "a single '{' at character 1"),
        ("a } b", "a single '}'"),
        ("{}", "an empty field"),
        ("{ }", "an empty field"),
    ],
)
def test_braces(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message.replace("{", r"\{").replace("}", r"\}")):
        Template(text)


def test_unknown_field_offers_the_nearest() -> None:
    with pytest.raises(RecipeError, match="unknown field 'tetx'; did you mean 'text'"):
        Template("{tetx}").check(["text", "label"])
    with pytest.raises(RecipeError, match="has no field"):
        Template("always the same")


def test_nothing_is_executed() -> None:
    assert Template("{text.__class__}").fields == ["text.__class__"]
    with pytest.raises(RecipeError, match="unknown field"):
        Template("{text.__class__}").check(["text"])
