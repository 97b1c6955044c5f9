"""What a chat format is: a Jinja template over messages, as model folders have them."""

from __future__ import annotations

from typing import ClassVar


class ChatFormat:
    """Base of every chat format. Its file registers one subclass with `@register("chats")`.

    The template sees `messages`, `bos_token`, `eos_token` and `add_generation_prompt`.
    """

    name: ClassVar[str]
    template: ClassVar[str]
    tokens: ClassVar[tuple[str, ...]] = ()  # that the tokenizer must have as single ones
