"""How many sequences a request is: prompts, each with so many answers; its tokens are their sums.

Rules: k sequences cost k times the joules of a mean one and the seconds of one, at a load of k - 1
more: they run together.
"""

from typing import NamedTuple

from gateway.scheduling.cost import CostFunction


class SequenceCounts(NamedTuple):
    """`prompts` prompts get `answers` answers each."""

    prompts: int = 1
    answers: int = 1

    @property
    def total(self) -> int:
        """How many answers there are in all."""
        return self.prompts * self.answers

    def find_mean_tokens(self, tokens_in: float, tokens_out: float) -> tuple[float, float]:
        """Return a mean sequence's tokens; `tokens_in` counts a prompt once for all its answers."""
        return tokens_in / self.prompts, tokens_out / self.total

    def predict_joules(
        self, cost: CostFunction, tokens_in: float, tokens_out: float, running: float
    ) -> float:
        """Return the joules of all of them beside `running` other requests."""
        if self.prompts == self.answers == 1:  # as nearly all are
            return cost.predict_cost(tokens_in, tokens_out, running)
        each_in, each_out = self.find_mean_tokens(tokens_in, tokens_out)
        return self.total * cost.predict_cost(each_in, each_out, running + self.total - 1)


SINGLE = SequenceCounts()
