"""ChatML: a token begins every turn and a token ends it."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.prompts.chats.base import ChatFormat


@register("chats")
class ChatMl(ChatFormat):
    """Turns between <|im_start|> and <|im_end|>, as Qwen and others have them."""

    name: ClassVar[str] = "chatml"
    template: ClassVar[str] = (
        "{% for message in messages %}"
        "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
        "{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokens: ClassVar[tuple[str, ...]] = ("<|im_start|>", "<|im_end|>")
