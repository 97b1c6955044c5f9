"""Speakers by name, for models without tokens for turns."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.prompts.chats.base import ChatFormat


@register("chats")
class Plain(ChatFormat):
    """Every message on a line of its own after its speaker's name; an answer ends with the end token."""

    name: ClassVar[str] = "plain"
    template: ClassVar[str] = (
        "{{ bos_token }}"
        "{% for message in messages %}"
        "{% if message.role == 'assistant' %}Assistant: {{ message.content }}{{ eos_token }}\n"
        "{% elif message.role == 'system' %}{{ message.content }}\n"
        "{% else %}{{ message.role | capitalize }}: {{ message.content }}\n{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}Assistant:{% endif %}"
    )
