"""Chat templates: messages become one text, and it is known where every answer stands in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.core.errors import DataError, RecipeError, unknown
from tunesmith.core.registry import components

Span = tuple[int, int]  # characters of the text: first, and the one after the last


@dataclass(frozen=True)
class Rendered:
    """A conversation as text.

    Args:
        text: all of it.
        answers: where each answer stands, its end-of-turn token included, in order.
    """

    text: str
    answers: list[Span]


class Chat:
    """A chat template and the tokenizer it belongs to.

    Args:
        tokenizer: of the model, with an end token.
        wanted: auto, model (the tokenizer's own template) or a registered chat format.
        system: message of conversations that bring none; empty for none.
        apart: question and answer are sequences of their own, for an encoder and a decoder.
    Raises:
        RecipeError: an unknown name, a template the tokenizer lacks, or one whose tokens it does not know.
    """

    def __init__(self, tokenizer: Any, wanted: str = "auto", system: str = "", apart: bool = False) -> None:
        self.tokenizer, self.system, self.apart = tokenizer, system, apart
        own = getattr(tokenizer, "chat_template", None)
        if isinstance(own, dict):  # several, by purpose: tool use, retrieval, ...
            own = own.get("default")
        if wanted == "model" and not own:
            raise RecipeError(
                "prompt.chat=model: the model's tokenizer has no chat template. Choose "
                f"{' or '.join(components('chats'))}."
            )
        self.name = ("model" if own else "bare" if apart else "plain") if wanted == "auto" else wanted
        if self.name == "model":
            self.template = own
            return
        if self.name not in components("chats"):
            raise RecipeError(f"prompt.chat: {unknown('chat format', wanted, ['auto', 'model', *components('chats')])}")
        kind = components("chats")[self.name]
        self.template = kind.template
        lacking = [token for token in kind.tokens if len(_ids(tokenizer, token)) != 1]
        if lacking:
            raise RecipeError(
                f"prompt.chat={self.name}: the tokenizer does not know {', '.join(lacking)} as single tokens. Choose "
                "plain or alpaca, or add the tokens to the model first (tunesmith.add_tokens)."
            )

    @property
    def rules(self) -> str | None:
        """All that the texts depend on besides messages and tokenizer; None for a template that asks for the date."""
        template = json.dumps(self.template)
        return None if "strftime" in template else json.dumps([template, self.system, self.apart, self.name])

    def render(self, messages: Sequence[dict[str, str]], answer_next: bool = False) -> str:
        """Write messages as one text.

        Args:
            messages: with role and content.
            answer_next: end where the next answer begins.
        Returns:
            The text, special tokens spelled out.
        Raises:
            DataError: the template refuses the messages.
        """
        import jinja2

        messages = self.opened(messages)
        try:
            text: str = self.tokenizer.apply_chat_template(
                messages, chat_template=self.template, tokenize=False, add_generation_prompt=answer_next
            )
        except (jinja2.TemplateError, TypeError, KeyError, ValueError) as error:
            roles = ", ".join(message["role"] for message in messages)
            raise DataError(f"the chat template '{self.name}' refuses the roles {roles}: {error}") from None
        return text

    def asked(self, messages: Sequence[dict[str, str]]) -> str:
        """Write what the next answer is written after.

        Args:
            messages: with role and content.
        Returns:
            The text; for an encoder without a begin token, which its tokenizer sets, and white space around it.
        Raises:
            DataError: the template refuses the messages, or leaves one out.
        """
        text = self.render(messages, True)
        self._check_said(messages, text)
        return text.removeprefix(self.tokenizer.bos_token or "").strip() if self.apart else text

    def opened(self, messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
        """Put the system message in front where messages bring none.

        Args:
            messages: with role and content.
        Returns:
            The messages as the template sees them.
        """
        brings = any(message["role"] == "system" for message in messages)
        return [*([{"role": "system", "content": self.system}] if self.system and not brings else []), *messages]

    def conversation(self, messages: Sequence[dict[str, str]], learn: str = "all") -> Rendered:
        """Write messages as one text and find the answers in it that are learned.

        An answer begins where the template stops when it asks for one, and ends with the turn: with its end-of-turn
        token where the template has one, else with the end token, which is added after a last answer.

        Args:
            messages: the last one an answer.
            learn: "all" answers, those of weight 0 aside, or the "last" one; the others may be written in any way, as
                by templates that leave out what a model thought earlier.
        Returns:
            The text and the spans of the answers.
        Raises:
            DataError: the template leaves something out, or writes earlier messages differently when more follow, so
                that answers cannot be found.
        """
        text = self.render(messages)
        self._check_said(messages, text)
        last = len(messages) - 1
        wanted = [
            number
            for number, message in enumerate(messages)
            if message["role"] == "assistant" and "weight" not in message and (learn == "all" or number == last)
        ]
        answers = [self._span(messages, number, text) for number in wanted]
        start, end = answers[-1]
        if not self._closed(text[start:end]):
            text = text[:end] + self.tokenizer.eos_token
            answers[-1] = (start, len(text))
        return Rendered(text, answers)

    def _span(self, messages: Sequence[dict[str, str]], number: int, text: str) -> Span:
        """Find an answer in the text of its conversation."""
        before, after = self.render(messages[:number], True), self.render(messages[: number + 1])
        if not text.startswith(after):
            raise DataError(
                f"the chat template '{self.name}' writes message {number + 1} differently when more follow, so it is "
                "not known which tokens are the answer. Learn the last answer only (task.learn=last), or choose "
                "another prompt.chat."
            )
        if not after.startswith(before):
            raise DataError(
                f"the chat template '{self.name}' asks for message {number + 1} with {before[-40:]!r} at the end, and "
                "writes something else there when the answer is given, so it is not known where the answer begins. "
                "Mend the template, or choose another prompt.chat."
            )
        self._check_asked(messages[:number], before, after[len(before) :], messages[number]["content"])
        return len(before), self._end(after)

    def _check_said(self, messages: Sequence[dict[str, str]], text: str) -> None:
        """Refuse a template that leaves out what is said to the model: it would train without it."""
        for message in self.opened(messages):
            if message["role"] != "assistant" and not _stands(message["content"], text):
                where = " and of prompt.system" if message["role"] == "system" else ""
                raise DataError(
                    f"the chat template '{self.name}' leaves the {message['role']} message out, or a part of it "
                    f"({message['content'].strip()[:60]!r}). Leave it out of the data{where}, or choose another "
                    "prompt.chat."
                )

    def _check_asked(self, messages: Sequence[dict[str, str]], before: str, answer: str, content: str) -> None:
        """Refuse a template that does not write an answer whole, or marks one without marking where it is asked for."""
        if not _stands(content, answer):
            raise DataError(
                f"the chat template '{self.name}' does not write an answer whole: of {content.strip()[:60]!r} it makes "
                f"{answer[:80]!r}. The model would not learn it. Mend the template, or choose another prompt.chat."
            )
        place = answer.find(content.strip())
        if place > 0 and answer[:place].strip() and before == self.render(messages):
            raise DataError(
                f"the chat template '{self.name}' writes {answer[:place].strip()!r} in front of an answer, but not "
                "where it asks for one (add_generation_prompt), so the model would learn to write it. Mend the "
                "template, or choose another prompt.chat."
            )

    def _end(self, text: str) -> int:
        """Return where a turn ends: after its closing token, white space behind it left out."""
        short = text.rstrip()
        return len(short) if self._closed(short) else len(text)

    def _closed(self, text: str) -> bool:
        return text.endswith(tuple(special_tokens(self.tokenizer)))

    def closing(self) -> list[str]:
        """Return the tokens that end an answer: the end token, and the template's own end of turn.

        Returns:
            Their texts, each once.
        """
        asked = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "."}]
        rendered = self.conversation(asked)
        start, end = rendered.answers[-1]
        answer = rendered.text[start:end]
        own = [token for token in special_tokens(self.tokenizer) if answer.endswith(token)]
        return list(dict.fromkeys([*own, self.tokenizer.eos_token]))


def _stands(content: str, text: str) -> bool:
    """Say whether a text holds a message, spacing aside, as it is or written as JSON."""
    wanted = content.strip()
    if wanted in text:
        return True
    bare = "".join(text.split())
    return any("".join(form.split()) in bare for form in (wanted, json.dumps(wanted, ensure_ascii=False)[1:-1]))


def special_tokens(tokenizer: Any) -> list[str]:
    """Return the tokens that a tokenizer treats as signs rather than as text.

    Args:
        tokenizer: of a model.
    Returns:
        Their texts, the longest first.
    """
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return sorted({*tokenizer.all_special_tokens, *added}, key=len, reverse=True)


def _ids(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found
