"""A conversation as the text that a chat model was tuned on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from gigafactory.errors import UserError

_START, _END = "<|im_start|>", "<|im_end|>"


def chat_parts(
    messages: Sequence[Mapping[str, str]], template: str, *, add_generation_prompt: bool = True
) -> list[tuple[str, bool]]:
    """The prompt of `render_chat` in pieces: (text, whether it is a mark of the template).

    Only marks may be encoded as special tokens: a message that holds their names is text, and ends no turn.
    """
    if _START not in template or _END not in template:
        raise UserError(f"chat template: only ChatML ({_START}) is supported")
    blocks = [(message["role"], message["content"]) for message in messages]
    # plain text between the marks, not template code; a line break may be written as an escape
    default_system = re.search(rf"{re.escape(_START)}system(?:\n|\\n)([^'\"{{}}]+){re.escape(_END)}", template)
    if default_system and (not blocks or blocks[0][0] != "system"):
        blocks.insert(0, ("system", default_system.group(1)))
    parts: list[tuple[str, bool]] = []
    for role, content in blocks:
        parts += [(_START, True), (f"{role}\n{content}", False), (_END, True), ("\n", False)]
    return [*parts, (_START, True), ("assistant\n", False)] if add_generation_prompt else parts


def render_chat(messages: Sequence[Mapping[str, str]], template: str, *, add_generation_prompt: bool = True) -> str:
    """The prompt for messages of {"role", "content"}, by a model's own template if that is ChatML.

    ChatML needs no template engine: each message is one block, and a system message that the template writes itself
    when the conversation has none is taken from its text. Raises UserError for another kind of template.
    """
    return "".join(text for text, _ in chat_parts(messages, template, add_generation_prompt=add_generation_prompt))
