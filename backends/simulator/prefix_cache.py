"""An engine's prefix cache, as vLLM has it: whole blocks of 16 tokens, the least used out first.

Rules: a block is known by all that stands before it. What a request computes is there for the next
one as soon as it is submitted; its answer as well, for the answer is drawn beforehand.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from backends.simulator import tokens
from backends.simulator.answers import SimulatedCompletion
from backends.simulator.prompts import read_content
from backends.simulator.protocol import ChatRequest

BLOCK_TOKENS: Final = 16


class SimulatedPrefixCache:
    """The blocks of one engine; `capacity_tokens` bounds them."""

    def __init__(self, capacity_tokens: int) -> None:
        self._most_blocks = capacity_tokens // BLOCK_TOKENS
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def cache_chat(
        self, chat: ChatRequest, answers: list[SimulatedCompletion]
    ) -> list[SimulatedCompletion]:
        """Return the answers to a chat with what was found of its prompt, which is kept."""
        if not self._most_blocks:
            return answers
        prompt: list[int | str] = []
        for message in chat.messages:
            prompt += (message.role, *tokens.encode_text(read_content(message)[0]))
        found = self.add_tokens(prompt, ("assistant", *tokens.encode_text(answers[0].full_text)))
        return [
            replace(one, cached_tokens=min(found, one.tokens_in - 1) if one is answers[0] else 0)
            for one in answers
        ]

    def add_tokens(self, prompt: Sequence[int | str], answer: Sequence[int | str] = ()) -> int:
        """Return how many of a prompt's tokens were there, and keep it with its answer."""
        everything = (*prompt, *answer)
        found, mark, known = 0, 0, True
        for end in range(BLOCK_TOKENS, len(everything) + 1, BLOCK_TOKENS):
            mark = hash((mark, everything[end - BLOCK_TOKENS : end]))
            known = known and mark in self._blocks
            if known and end <= len(prompt):
                found = end
            self._blocks[mark] = None
            self._blocks.move_to_end(mark)
        while len(self._blocks) > self._most_blocks:
            self._blocks.popitem(last=False)
        return found
