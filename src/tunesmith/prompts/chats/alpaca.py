"""Instruction and response under headings."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.prompts.chats.base import ChatFormat


@register("chats")
class Headings(ChatFormat):
    """Instruction and response under headings, as Alpaca has them; an answer ends with the end token."""

    name: ClassVar[str] = "alpaca"
    template: ClassVar[str] = (
        "{{ bos_token }}"
        "{% for message in messages %}"
        "{% if message.role == 'assistant' %}### Response:\n{{ message.content }}{{ eos_token }}\n\n"
        "{% elif message.role == 'system' %}{{ message.content }}\n\n"
        "{% else %}### Instruction:\n{{ message.content }}\n\n{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}### Response:\n{% endif %}"
    )
