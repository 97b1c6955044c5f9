"""Where answers stand in a conversation, whatever the template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import save_tiny_writer
from tunesmith.core.errors import DataError, RecipeError
from tunesmith.data.conversations import messages_of
from tunesmith.models.loading import load_tokenizer, locate
from tunesmith.prompts.chat import Chat

TURNS = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi 😀"},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "See you"},
]
REWRITING = "{% for m in messages %}{{ m.role }}{{ loop.length }}: {{ m.content }}\n{% endfor %}"
REFUSING = "{{ raise_exception('only users') }}"
WITHOUT_END = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def tokenizer_of(folder: Path) -> Any:
    return load_tokenizer(locate(str(folder)))


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("plain", [" Hi 😀</s>", " See you</s>"]),
        ("chatml", ["Hi 😀<|im_end|>", "See you<|im_end|>"]),
        ("alpaca", ["Hi 😀</s>", "See you</s>"]),
    ],
)
def test_answers_end_with_their_turn(tiny_writer: Path, name: str, answers: list[str]) -> None:
    chat = Chat(tokenizer_of(tiny_writer), name)
    found = chat.conversation(TURNS)
    assert [found.text[start:end] for start, end in found.answers] == answers
    before = chat.render(TURNS[:-1], True)
    assert found.text.startswith(before) and found.answers[-1][0] == len(before)
    assert "Be kind." in found.text


def test_auto_takes_the_models_own_template_else_plain(tiny_writer: Path, tmp_path: Path) -> None:
    assert Chat(tokenizer_of(tiny_writer)).name == "plain"
    own = tokenizer_of(save_tiny_writer(tmp_path, WITHOUT_END))
    chat = Chat(own)
    assert chat.name == "model"
    found = chat.conversation(TURNS[1:])
    assert [found.text[start:end] for start, end in found.answers] == ["Hi 😀", "See you</s>"]  # the end token is added
    assert chat.closing() == ["</s>"]
    assert Chat(own, "chatml").closing() == ["<|im_end|>", "</s>"]


def test_a_system_message_is_put_in_front_where_none_is(tiny_writer: Path) -> None:
    chat = Chat(tokenizer_of(tiny_writer), "plain", "Be brief.")
    assert "Be brief." in chat.conversation(TURNS[1:]).text
    assert "Be brief." not in chat.conversation(TURNS).text


@pytest.mark.parametrize(
    ("template", "wanted", "error", "match"),
    [
        (None, "model", RecipeError, "no chat template"),
        (None, "chatmll", RecipeError, "did you mean 'chatml'"),
        (REWRITING, "model", DataError, "writes message 2 differently"),
        (REFUSING, "model", DataError, "only users"),
    ],
)
def test_templates_that_do_not_serve(
    tmp_path: Path, template: str | None, wanted: str, error: type[Exception], match: str
) -> None:
    tokenizer = tokenizer_of(save_tiny_writer(tmp_path, template))
    with pytest.raises(error, match=match):
        Chat(tokenizer, wanted).conversation(TURNS[1:])


def test_chatml_needs_its_tokens(tiny_folder: Path) -> None:
    tokenizer = tokenizer_of(tiny_folder)
    with pytest.raises(RecipeError, match="does not know <|im_start|>"):
        Chat(tokenizer, "chatml")


def test_a_template_that_writes_a_header_only_in_front_of_answers_is_refused(tiny_writer: Path) -> None:
    tokenizer = tokenizer_of(tiny_writer)
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    with pytest.raises(DataError, match=r"'\[assistant\]' in front of an answer.*add_generation_prompt"):
        Chat(tokenizer, "model").conversation(TURNS)
    tokenizer.chat_template = WITHOUT_END.replace(
        "]{{ m.content", "]{% if m.role == 'assistant' %}(thought){% endif %}{{ m.content"
    )
    found = Chat(tokenizer, "model").conversation(TURNS)
    assert found.text[slice(*found.answers[0])].startswith("(thought)Hi"), "what the model is to write may come first"


@pytest.mark.parametrize("wrong", ["m.content[:4]", "'so'", "m.role"])
def test_a_template_that_does_not_write_what_is_said_is_refused(wrong: str, tiny_writer: Path) -> None:
    tokenizer = tokenizer_of(tiny_writer)
    turns = [{"role": "user", "content": "a question"}, {"role": "assistant", "content": "an answer"}]
    begin = "{% if add_generation_prompt %}[assistant]{% endif %}"
    write = "{% for m in messages %}[{{ m.role }}]{{ WHAT }}</s>{% endfor %}" + begin
    only = f"{wrong} if m.role == 'assistant' else m.content"
    for what, match in ((wrong, "leaves the user message out"), (only, "does not write an answer whole")):
        tokenizer.chat_template = write.replace("WHAT", what)
        with pytest.raises(DataError, match=match):
            Chat(tokenizer, "model").conversation(turns)
    spaced = "m.content.replace(' ', '  ') | trim"
    tokenizer.chat_template = write.replace("WHAT", spaced)
    assert Chat(tokenizer, "model").conversation(turns).text.endswith("[assistant]an  answer</s>")


def test_a_template_that_forgets_earlier_thoughts_teaches_the_last_answer(tiny_writer: Path) -> None:
    """As Qwen3's does: only the last answer keeps its thoughts, so earlier ones look otherwise when more follow."""
    tokenizer = tokenizer_of(tiny_writer)
    thinking = "{% if loop.last %}<think></think>{% endif %}"
    template = (
        "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' %}" + thinking + "{% endif %}{{ m.content }}"
        "</s>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    tokenizer.chat_template = {"default": template, "tool_use": "x"}
    chat = Chat(tokenizer)
    with pytest.raises(DataError, match="message 3 differently when more follow.*task.learn=last"):
        chat.conversation(TURNS)
    found = chat.conversation(TURNS, "last")
    assert [found.text[slice(*span)] for span in found.answers] == [f"<think></think>{TURNS[-1]['content']}</s>"]
    read = [{**turn, "weight": "0"} if turn["role"] == "assistant" else turn for turn in TURNS[:-1]]
    assert chat.conversation([*read, TURNS[-1]]) == found
    tokenizer.chat_template = template.replace("%}[assistant]", "%}[answer]")
    with pytest.raises(DataError, match=r"asks for message 3 with .*\[answer\]' at the end"):
        Chat(tokenizer).conversation(TURNS[:3])


def test_an_answer_of_weight_0_is_read_and_not_learned(tiny_writer: Path) -> None:
    chat = Chat(tokenizer_of(tiny_writer), "plain")
    talk = [("user", "1?", 1), ("assistant", "wrong", 0), ("user", "2?"), ("assistant", "right", 1), ("user", "3?"),
            ("assistant", "left out", 0)]  # fmt: skip
    messages = messages_of(talk)
    assert len(messages) == 4, "nothing behind the last learned answer teaches"
    found = chat.conversation(messages)
    assert "wrong" in found.text and [found.text[slice(*span)].strip() for span in found.answers] == ["right</s>"]
    with pytest.raises(DataError, match=r"weight 0\.5; 1 \(learned\) and 0"):
        messages_of([("user", "1?"), ("assistant", "so", 0.5)])
    with pytest.raises(DataError, match="no message is an answer to learn"):
        messages_of(talk[:2])


def test_a_template_that_leaves_the_system_message_out_is_refused(tiny_writer: Path) -> None:
    tokenizer = tokenizer_of(tiny_writer)
    tokenizer.chat_template = WITHOUT_END.replace(
        "[{{ m.role", "{% if m.role == 'system' %}{% continue %}{% endif %}[{{ m.role"
    )
    with pytest.raises(DataError, match="leaves the system message out"):
        Chat(tokenizer, "model").conversation(TURNS)
    assert Chat(tokenizer, "model").conversation(TURNS[1:]).answers
    with pytest.raises(DataError, match="Be brief"):
        Chat(tokenizer, "model", "Be brief.").conversation(TURNS[1:])
