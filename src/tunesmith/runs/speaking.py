"""What a run of a language task can do: go on with texts, answer, talk, choose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from tunesmith.core.errors import CompatibilityError, DataError, RecipeError
from tunesmith.core.seeds import check_seed
from tunesmith.data.cleaned import clean_texts
from tunesmith.data.conversations import Conversation, Message, messages_of, role
from tunesmith.data.examples import check_text
from tunesmith.data.tokens import LearnedRows
from tunesmith.models.language import LanguageModel
from tunesmith.recipe.loading import build_settings
from tunesmith.runs.generating import likelihoods, writer_of
from tunesmith.tasks.decoding import Answer, Writer, tell_of_room
from tunesmith.tasks.encoding import encode_conversations, encode_endings
from tunesmith.tasks.generating import OF_SAMPLING, AnswerTask, Decoding, LanguageTask
from tunesmith.training.cleaning import changes_of

if TYPE_CHECKING:
    from tunesmith.recipe.loading import Checked
    from tunesmith.runs.session import Session
    from tunesmith.tasks.tuned import Tuned


class Speaking:
    """The writing side of a run."""

    folder: Any

    if TYPE_CHECKING:

        @property
        def recipe(self) -> Checked: ...  # noqa: D102

        @property
        def _opened(self) -> tuple[Session, Tuned]: ...

    def generate(
        self, prompts: str | Sequence[str], *, samples: int = 1, seed: int = 0, **decoding: Any
    ) -> list[list[str]]:
        """Write after prompts: answers to them as a user's messages, or for text-generation what follows them.

        Args:
            prompts: one or several.
            samples: texts per prompt; more than one needs a temperature above 0. [count]
            seed: of sampling.
            **decoding: settings of `task.decoding` that differ from the recipe's, for example temperature=0.8.
        Returns:
            Per prompt, its texts.
        Raises:
            RecipeError: an unknown setting, or several samples without sampling.
            DataError: an empty prompt, or one that leaves no room.
            CompatibilityError: the run has labels and writes nothing.
        """
        found = self.answers(prompts, samples=samples, seed=seed, **decoding)
        return [[one.text for one in texts] for texts in found]

    def answers(
        self, prompts: str | Sequence[str], *, samples: int = 1, seed: int = 0, **decoding: Any
    ) -> list[list[Answer]]:
        """Write as `generate` does, and say why each text ends; how many end for lack of room is logged.

        Args:
            prompts: as for `generate`.
            samples: as for `generate`. [count]
            seed: of sampling.
            **decoding: as for `generate`.
        Returns:
            Per prompt, its texts with what ended them.
        Raises:
            RecipeError: as `generate`.
            DataError: as `generate`.
            CompatibilityError: as `generate`.
        """
        writer, settings = self._writer(decoding)
        check_seed(seed)
        if not isinstance(samples, int) or samples < 1:
            raise RecipeError(f"samples={samples!r}: a whole number of at least 1.")
        if samples > 1 and settings.temperature == 0:
            raise RecipeError(f"samples={samples}: without sampling all would be the same; set temperature above 0.")
        given = [prompts] if isinstance(prompts, str) else prompts
        if not isinstance(given, Sequence):
            raise DataError(f"prompts: a text or several, not {prompts!r}.")
        texts = [self._prompt(prompt) for prompt in given]
        found = writer.answer([text for text in texts for _ in range(samples)], settings, seed)
        tell_of_room(found, writer.room)
        return [found[place * samples : (place + 1) * samples] for place in range(len(given))]

    def chat(self, messages: Sequence[Message], *, seed: int = 0, **decoding: Any) -> str:
        """Answer a conversation.

        Args:
            messages: with role and content, the last one not the assistant's.
            seed: of sampling.
            **decoding: settings of `task.decoding` that differ from the recipe's.
        Returns:
            The answer.
        Raises:
            DataError: an unknown role, or no room for an answer.
        """
        writer, settings = self._writer(decoding)
        check_seed(seed)
        found = writer.answer([self._conversation(messages)], settings, seed)
        tell_of_room(found, writer.room)
        return found[0].text

    def stream(self, messages: Sequence[Message] | str, *, seed: int = 0, **decoding: Any) -> Iterator[str]:
        """Answer piece by piece.

        Args:
            messages: a conversation, or a prompt as for `generate`.
            seed: of sampling.
            **decoding: settings of `task.decoding` that differ from the recipe's.
        Returns:
            The pieces of the answer as they are written; all in one where a search over beams knows it at the end only.
        """
        writer, settings = self._writer(decoding)
        check_seed(seed)
        prompt = self._prompt(messages) if isinstance(messages, str) else self._conversation(messages)
        if settings.beams > 1:
            found = writer.answer([prompt], settings, seed)
            yield found[0].text
            tell_of_room(found, writer.room)
        else:
            yield from writer.stream(prompt, settings, seed)

    def fitting(self, messages: Sequence[Message], **decoding: Any) -> list[Message]:
        """Leave out the oldest turns of a conversation that leave an answer too little room.

        An answer has room where `max_new_tokens` fit behind its prompt, or half of all tokens that the run reads.

        Args:
            messages: as for `chat`.
            **decoding: as for `chat`.
        Returns:
            Messages of the system that come first, then the newest turns; the last one always.
        Raises:
            RecipeError: as `chat`.
            DataError: as `chat`.
        """
        writer, settings = self._writer(decoding)
        self._conversation(messages)
        roles = [role(message["role"]) for message in messages]
        first = next((place for place, spoken in enumerate(roles) if spoken != "system"), len(roles))
        turns = [place for place in range(first, len(roles)) if roles[place] == "user"] or [first]
        for place in (first, *turns):
            kept = [*messages[:first], *messages[place:]]
            if writer.roomy(self._conversation(kept), settings.max_new_tokens):
                break
        return kept

    def choose(self, prompt: str, choices: Sequence[str]) -> dict[str, float]:
        """Let the model choose among texts: the probability that it would write each of them, compared.

        Args:
            prompt: as for `generate`.
            choices: at least two, all different.
        Returns:
            Each choice's share of the probability of all, the most probable first.
        Raises:
            DataError: fewer than two choices, equal ones, or an empty one.
        """
        check_text(prompt, "the prompt")
        _check_choices(choices)
        writer, _ = self._writer({})
        session = self._opened[0]
        backbone, task, chat = session.backbone, session.task, session.chat
        assert isinstance(backbone, LanguageModel) and isinstance(task, LanguageTask) and chat is not None
        if isinstance(task, AnswerTask):
            rows = self._answered(prompt, choices)
        else:
            rows = encode_endings(writer.encode(self._prompt(prompt)), [writer.encode(text) for text in choices],
                                  session.max_tokens)  # fmt: skip
        if rows.truncated or len(rows) < len(choices):
            longest = int(rows.full_lengths.max()) if len(rows) else "too many"
            raise DataError(f"prompt and choice have {longest} tokens; {session.max_tokens} fit.")
        nats = likelihoods(backbone, task, rows)
        shares = torch.from_numpy(-nats).softmax(0).tolist()
        return dict(sorted(zip(choices, shares, strict=True), key=lambda item: -item[1]))

    # Inside ---------------------------------------------------------------------------------------------------

    def _answered(self, prompt: str, choices: Sequence[str]) -> LearnedRows:
        """Make rows of a question with each of its possible answers."""
        session = self._opened[0]
        assert session.chat is not None
        asked = [{"role": "user", "content": self._cleaned([prompt])[0]}]
        found = [Conversation([*asked, {"role": "assistant", "content": text}], []) for text in choices]
        return encode_conversations(found, session.chat, session.max_tokens, "end", "last").rows

    def _writer(self, changes: dict[str, Any]) -> tuple[Writer, Decoding]:
        if not isinstance(self.recipe.task, LanguageTask):
            raise CompatibilityError(
                f"{self.folder} is a run of the task {self.recipe.task.name}, which gives labels and writes no text. "
                "Use predict."
            )
        if self.recipe.task.opens == "masked":
            raise CompatibilityError(
                f"{self.folder} is a run of an encoder that fills in hidden tokens; it cannot write. Evaluate it, or "
                "merge it and tune the merged model for another task."
            )
        usual = self.recipe.task.decoding.model_dump()
        if changes.get("temperature") == 0:
            usual = {key: value for key, value in usual.items() if key not in OF_SAMPLING}
        settings = build_settings(Decoding, {**usual, **changes}, "decoding")
        session, tuned = self._opened
        tuned.backbone.seams.use(tuned.delta.name)
        return writer_of(session), settings

    def _cleaned(self, texts: Sequence[str]) -> list[str]:
        return clean_texts(texts, changes_of(self.recipe.recipe.data))

    def _prompt(self, text: str) -> str:
        check_text(text, "the prompt")
        cleaned = self._cleaned([text])[0]
        if not cleaned.strip():
            raise DataError("the prompt is empty: give at least one visible character.")
        session = self._opened[0]
        if isinstance(self.recipe.task, AnswerTask):
            return self._conversation([{"role": "user", "content": text}])
        begin = session.tokenizer.bos_token or ""
        return cleaned if cleaned.startswith(begin) else begin + cleaned

    def _conversation(self, messages: Sequence[Message]) -> str:
        session = self._opened[0]
        if not isinstance(messages, Sequence):
            raise DataError(f"messages: a list of messages, not {messages!r}.")
        for number, message in enumerate(messages, 1):
            if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
                raise DataError(
                    f"message {number}: {message!r} is no message; give a mapping with role and content, for example "
                    "{'role': 'user', 'content': 'Hello'}."
                )
            check_text(message["content"], f"message {number}")
        last = role(messages[-1]["role"]) if messages else "nothing"
        if last not in ("user", "tool"):
            raise DataError(f"a conversation to be answered ends with a message of the user, not with {last}.")
        contents = self._cleaned([message["content"] for message in messages])
        roles = [message["role"] for message in messages]
        spoken = messages_of([*zip(roles, contents, strict=True), ("assistant", ".")])[:-1]
        assert session.chat is not None
        return session.chat.asked(spoken)


def _check_choices(choices: Any) -> None:
    if isinstance(choices, str) or not isinstance(choices, Sequence):
        raise DataError(f"choices: a list of texts, not {choices!r}.")
    for number, text in enumerate(choices, 1):
        check_text(text, f"choice {number}")
    if len(set(choices)) < max(2, len(choices)) or not all(text.strip() for text in choices):
        raise DataError(f"choices={list(choices)}: two or more are needed, all different and none empty.")
