"""vLLM's endpoints that judge by the next token: generative scoring and structured decisions.

Each prompt is read as a prompt; what is judged is drawn from a hash of the text and means nothing.
"""

from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from backends.simulator import tokens
from backends.simulator.handlers import SimulatorHandlers
from backends.simulator.judged_texts import answer_judged, read_texts, seed_judgement
from backends.simulator.protocol import SimulatorError


class GenerativeScoringRequest(msgspec.Struct, kw_only=True):
    """The body of /generative_scoring: texts, or token ids."""

    query: str | list[int]
    items: list[str | list[int]]
    label_token_ids: list[int]
    model: str | None = None
    item_first: bool = False

    def list_prompts(self) -> list[str]:
        """Return the query with each item."""
        query = _read_text(self.query)
        items = map(_read_text, self.items)
        return [item + query if self.item_first else query + item for item in items]


class DecisionQuestion(msgspec.Struct, kw_only=True):
    """A question of a structured decision."""

    type: str
    instructions: Any = ""
    criteria: Any = None

    def list_options(self, name: str) -> list[str]:
        """Return what may be answered. Raises SimulatorError."""
        match self.type, self.criteria:
            case "choice", dict(criteria) if criteria:
                return list(criteria)
            case "noul", None | dict():
                return ["yes", "no"]
            case "score", [_, _, *_]:
                return [str(level) for level in self.criteria]
            case (("choice" | "noul" | "score"), _):
                raise _make_refusal(f"question {name!r}: not the criteria of a {self.type}")
        raise _make_refusal(
            f"unknown question type {self.type!r}; supported: ['choice', 'noul', 'score']"
        )

    def build_answer(self, options: list[str], chances: list[float]) -> dict[str, Any]:
        """Return the answer, the likeliest option first in mind."""
        best = max(range(len(options)), key=chances.__getitem__)
        told = {"type": self.type, "confidence": chances[best]}
        if self.type == "score":
            numbered = dict(zip(map(str, range(len(options))), options, strict=True))
            told |= {"score": sum(k * chance for k, chance in enumerate(chances))}
            told |= {"legend": numbered, "probabilities": dict(zip(numbered, chances, strict=True))}
            return told
        found = options[best] if self.type == "choice" else chances[0]
        return told | {self.type: found, "probabilities": dict(zip(options, chances, strict=True))}


class StructuredDecisionRequest(msgspec.Struct, kw_only=True):
    """The body of /v1/systemone."""

    state: Any
    questions: dict[str, DecisionQuestion]
    model: str | None = None
    instructions: str | None = None


class JudgingHandlers:
    """These endpoints on one simulated server."""

    def __init__(self, server: SimulatorHandlers) -> None:
        self._server = server

    def list_routes(self) -> list[web.RouteDef]:
        """Every endpoint."""
        return [
            web.post("/generative_scoring", self.post_generative_scoring),
            web.post("/v1/systemone", self.post_structured_decision),
        ]

    async def post_generative_scoring(self, request: web.Request) -> web.StreamResponse:
        """POST /generative_scoring: how likely the first label comes next after each item."""
        asked = await self._server.read_body(request, GenerativeScoringRequest)
        if not asked.items or not asked.label_token_ids:
            raise _make_refusal("items and label_token_ids must not be empty")
        prompts = asked.list_prompts()
        marks, usage = await read_texts(self._server, prompts, len(prompts))  # a token is made each
        data = [
            {
                "index": k,
                "object": "score",
                "score": self._draw(mark, len(asked.label_token_ids))[0],
            }
            for k, mark in enumerate(marks)
        ]
        return answer_judged(
            self._server, "generative-scoring", object="list", data=data, usage=usage
        )

    async def post_structured_decision(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/systemone: an answer to each question about a state."""
        asked = await self._server.read_body(request, StructuredDecisionRequest)
        if not asked.questions:
            raise _make_refusal("questions must not be empty")
        options = {name: one.list_options(name) for name, one in asked.questions.items()}
        head = f"{asked.instructions or ''}\n{msgspec.json.encode(asked.state).decode()}\n"
        prompts = [f"{head}{one.instructions}\n{options[n]}" for n, one in asked.questions.items()]
        marks, usage = await read_texts(self._server, prompts, len(prompts))
        answers, sure = {}, {}
        for (name, question), mark in zip(asked.questions.items(), marks, strict=True):
            chances = self._draw(mark, len(options[name]))
            answers[name] = question.build_answer(options[name], chances)
            sure[name] = {"label_mass": 1.0, "argmax_is_label": True}
        counted = {"input_tokens": usage["prompt_tokens"], "output_tokens": len(prompts)}
        told = {"object": "structured_decision", "answers": answers, "diagnostics": sure}
        return answer_judged(self._server, "decision", **told, usage=counted)

    def _draw(self, mark: int, count: int) -> list[float]:
        """Return probabilities that add up to 1."""
        rng = seed_judgement(self._server, mark)
        drawn = [rng.random() + 0.01 for _ in range(count)]
        return [one / sum(drawn) for one in drawn]


def _read_text(given: str | list[int]) -> str:
    return given if isinstance(given, str) else tokens.decode_ids(given)


def _make_refusal(why: str) -> SimulatorError:
    return SimulatorError(HTTPStatus.BAD_REQUEST, why)
