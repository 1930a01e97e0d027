"""vLLM's endpoints that read and do not write: rerank, score, classify, pooling, audio, tokenizer.

A prompt costs what it costs as a prompt; what comes of it is drawn from a hash of the text, so that
it is the same each time and means nothing.
"""

from collections.abc import Sequence
from http import HTTPStatus
from random import Random
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from backends.simulator import text
from backends.simulator.embeddings import DEFAULT_DIMENSIONS, build_embedding
from backends.simulator.handlers import SimulatorHandlers, json_response
from backends.simulator.judged_texts import answer_judged, read_texts, seed_judgement
from backends.simulator.protocol import SimulatorError

_LABELS = ("negative", "positive")
_WORDS_HEARD = 12
_BYTES_PER_AUDIO_TOKEN = 640  # 16-bit sound of 16 kHz, 20 ms a token


class ScoringRequest(msgspec.Struct, kw_only=True):
    """What any of these endpoints may be asked."""

    model: str | None = None
    query: str | None = None
    documents: list[str | dict[str, Any]] | None = None
    top_n: int | None = None
    text_1: str | list[str] | None = None
    text_2: str | list[str] | None = None
    queries: str | list[str] | None = None
    input: str | list[str] | None = None
    texts: list[str] | None = None


class ScoringHandlers:
    """These endpoints on one simulated server that embeds."""

    def __init__(self, server: SimulatorHandlers) -> None:
        self._server = server

    def list_routes(self) -> list[web.RouteDef]:
        """Every endpoint."""
        reranks = [web.post(p, self.post_rerank) for p in ("/rerank", "/v1/rerank", "/v2/rerank")]
        return [
            *reranks,
            *(web.post(path, self.post_score) for path in ("/score", "/v1/score")),
            web.post("/classify", self.post_classify),
            web.post("/pooling", self.post_pooling),
            web.post("/v2/embed", self.post_embed_v2),
            web.post("/v1/audio/transcriptions", self.post_audio),
            web.post("/v1/audio/translations", self.post_audio),
            web.get("/tokenizer_info", self.get_tokenizer_info),
        ]

    async def post_rerank(self, request: web.Request) -> web.StreamResponse:
        """POST /rerank: each document against the query, the best first."""
        asked = await self._read(request)
        if asked.query is None or not asked.documents:
            raise SimulatorError(
                HTTPStatus.BAD_REQUEST, "1 validation error: query and documents are required"
            )
        documents = [d if isinstance(d, str) else str(d.get("text", "")) for d in asked.documents]
        pairs = [f"{asked.query}\n{document}" for document in documents]
        marks, usage = await self._compute(pairs)
        found = [
            {"index": k, "document": {"text": documents[k]}, "relevance_score": self._draw(mark)}
            for k, mark in enumerate(marks)
        ]
        found.sort(key=lambda one: -float(one["relevance_score"]))  # type: ignore[arg-type]
        return self._answer("rerank", results=found[: asked.top_n], usage=usage)

    async def post_score(self, request: web.Request) -> web.StreamResponse:
        """POST /score: each second text against the first, or its own first."""
        asked = await self._read(request)
        first = _list(asked.text_1 if asked.text_1 is not None else asked.queries)
        second = _list(asked.text_2 if asked.text_2 is not None else asked.documents)
        if not first or not second or len(first) not in {1, len(second)}:
            raise SimulatorError(
                HTTPStatus.BAD_REQUEST, "1 validation error: text_1 and text_2 do not match"
            )
        firsts = first * len(second) if len(first) == 1 else first
        marks, usage = await self._compute(
            [f"{a}\n{b}" for a, b in zip(firsts, second, strict=True)]
        )
        data = [
            {"index": k, "object": "score", "score": self._draw(mark)}
            for k, mark in enumerate(marks)
        ]
        return self._answer("score", object="list", data=data, usage=usage)

    async def post_classify(self, request: web.Request) -> web.StreamResponse:
        """POST /classify."""
        marks, usage = await self._compute(_list((await self._read(request)).input))
        data = []
        for k, mark in enumerate(marks):
            chance = self._draw(mark)
            label = _LABELS[round(chance)]
            probs = [1.0 - chance, chance]
            data.append({"index": k, "label": label, "probs": probs, "num_classes": len(probs)})
        return self._answer("classify", object="list", data=data, usage=usage)

    async def post_pooling(self, request: web.Request) -> web.StreamResponse:
        """POST /pooling: the vectors of /v1/embeddings, by another name."""
        marks, usage = await self._compute(_list((await self._read(request)).input))
        data = [
            {"index": k, "object": "pooling", "data": vector}
            for k, vector in enumerate(self._embed(marks))
        ]
        return self._answer("pool", object="list", data=data, usage=usage)

    async def post_embed_v2(self, request: web.Request) -> web.StreamResponse:
        """POST /v2/embed, as Cohere has it."""
        asked = await self._read(request)
        marks, usage = await self._compute(asked.texts or [])
        billed = {"billed_units": {"input_tokens": usage["prompt_tokens"]}}
        told = {"embeddings": {"float": self._embed(marks)}, "texts": asked.texts, "meta": billed}
        return self._answer("embd", **told)

    async def post_audio(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/audio/transcriptions and /translations: some filler for any sound."""
        try:
            form = await request.post()
        except (AssertionError, HttpProcessingError, LookupError, ValueError) as error:
            # aiohttp's, of parts that cannot be read.
            raise SimulatorError(
                HTTPStatus.BAD_REQUEST, "There was an error parsing the body"
            ) from error
        sound = form.get("file")
        if not isinstance(sound, web.FileField):
            raise SimulatorError(HTTPStatus.BAD_REQUEST, "1 validation error: file: Field required")
        self._server.check_model(str(form.get("model", self._server.spec.model)))
        data = sound.file.read()
        await self._server.read_prompts([max(1, len(data) // _BYTES_PER_AUDIO_TOKEN)])
        rng = Random(data[:1024])  # noqa: S311 - to be repeatable
        heard = "".join(text.make_filler(self._server.spec.model, _WORDS_HEARD, rng))
        if form.get("response_format") == "text":
            return web.Response(text=heard)
        return json_response(msgspec.json.encode({"text": heard, "usage": None}))

    async def get_tokenizer_info(self, _: web.Request) -> web.StreamResponse:
        """GET /tokenizer_info."""
        told = {
            "tokenizer_class": "SimulatedTokenizer",
            "model_max_length": self._server.engine.truth.context,
            "bos_token": None,
            "eos_token": "<|endoftext|>",
            "pad_token": None,
            "chat_template": None,
        }
        return json_response(msgspec.json.encode(told))

    async def _read(self, request: web.Request) -> ScoringRequest:
        asked = await self._server.read_body(request, ScoringRequest)
        if not self._server.spec.embeddings:
            raise SimulatorError(HTTPStatus.NOT_FOUND, "Not Found", "NotFoundError")
        return asked

    async def _compute(self, prompts: Sequence[str]) -> tuple[list[int], dict[str, int]]:
        return await read_texts(self._server, prompts, 0)

    def _draw(self, mark: int) -> float:
        return seed_judgement(self._server, mark).random()

    def _embed(self, marks: Sequence[int]) -> list[Any]:
        seed = self._server.spec.seed
        return [
            build_embedding(0, mark, seed, DEFAULT_DIMENSIONS, "float")["embedding"]
            for mark in marks
        ]

    def _answer(self, kind: str, **told: Any) -> web.Response:
        return answer_judged(self._server, kind, **told)


def _list(value: Any) -> list[str]:
    found = [value] if isinstance(value, str) else value or []
    return [str(one) for one in found]
