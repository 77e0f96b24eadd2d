"""A conversation as the text that a chat model was tuned on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from gigafactory.errors import UserError

_START, _END = "<|im_start|>", "<|im_end|>"


def render_chat(messages: Sequence[Mapping[str, str]], template: str, *, add_generation_prompt: bool = True) -> str:
    """The prompt for messages of {"role", "content"}, by a model's own template if that is ChatML.

    ChatML needs no template engine: each message is one block, and a system message that the template writes itself
    when the conversation has none is taken from its text. Raises UserError for another kind of template.
    """
    if _START not in template or _END not in template:
        raise UserError(f"chat template: only ChatML ({_START}) is supported")
    blocks = [(message["role"], message["content"]) for message in messages]
    # plain text between the marks, not template code; a line break may be written as an escape
    default_system = re.search(rf"{re.escape(_START)}system(?:\n|\\n)([^'\"{{}}]+){re.escape(_END)}", template)
    if default_system and (not blocks or blocks[0][0] != "system"):
        blocks.insert(0, ("system", default_system.group(1)))
    text = "".join(f"{_START}{role}\n{content}{_END}\n" for role, content in blocks)
    return text + (f"{_START}assistant\n" if add_generation_prompt else "")
