"""Nothing but what was said."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.core.registry import register
from tunesmith.prompts.chats.base import ChatFormat


@register("chats")
class Bare(ChatFormat):
    """Messages one under another without speakers, as encoder-decoders read them; an answer ends with the end token."""

    name: ClassVar[str] = "bare"
    template: ClassVar[str] = (
        "{{ bos_token }}"
        "{% for message in messages %}"
        "{{ message.content }}{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}"
        "{% if not loop.last %}{{ '\n' }}{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '\n' }}{% endif %}"
    )
