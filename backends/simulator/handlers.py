"""vLLM's endpoints, answered from an engine."""

import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any
from uuid import uuid4

import msgspec
from aiohttp import web

from backends.simulator import chunks, tokens
from backends.simulator.answers import (
    Answer,
    Spec,
    check_prompt,
    plan_chat,
    plan_completion,
    prompt_of_chat,
    prompts_of,
)
from backends.simulator.embeddings import DIMENSIONS, embedding
from backends.simulator.engine import Engine
from backends.simulator.faults import Fault, Faults
from backends.simulator.metrics import CONTENT_TYPE, Metrics
from backends.simulator.protocol import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    SimulatorError,
    TokenizeRequest,
    parse,
)
from backends.simulator.scheduler_loop import Pump
from backends.simulator.wire import FaultyWire, SeveredError, Wire

VERSION = "0.32.0+simulated"
# The faults that strike the request in hand, set around its handler.
STRUCK: ContextVar[Sequence[tuple[str, Fault]]] = ContextVar("struck", default=())


class Server:
    """One simulated server: what its endpoints share."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.engine = Engine(spec.truth, spec.seed)
        self.metrics = Metrics(spec.model, spec.speed)
        self.pump = Pump(self.engine, self.metrics, spec.speed)
        self.faults = Faults(spec.seed)
        self._started = int(time.time())

    def routes(self) -> list[web.RouteDef]:
        """Every endpoint."""
        return [
            web.post("/v1/chat/completions", self.chat),
            web.post("/v1/completions", self.completions),
            web.post("/v1/embeddings", self.embeddings),
            web.get("/v1/models", self.models),
            web.post("/tokenize", self.tokenize),
            web.post("/detokenize", self.detokenize),
            web.get("/health", self.health),
            web.get("/version", self.version),
            web.get("/metrics", self.scrape),
            web.get("/simulator/energy", self.energy),
            web.get("/simulator/faults", self.get_faults),
            web.put("/simulator/faults", self.put_faults),
            web.delete("/simulator/faults", self.delete_faults),
        ]

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/chat/completions."""
        asked = parse(await request.read(), ChatRequest)
        self._check_model(asked.model)
        tokens_in, mark = prompt_of_chat(asked, self.spec)
        answers = plan_chat(asked, self.spec, self.engine.truth, tokens_in, mark)
        top = (asked.top_logprobs or 0) if asked.logprobs else None
        return await self._generate(request, asked, "chat", answers, tokens_in, top)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/completions."""
        asked = parse(await request.read(), CompletionRequest)
        self._check_model(asked.model)
        prompts = prompts_of(asked.prompt, self.spec)
        answers = plan_completion(asked, self.spec, self.engine.truth, prompts)
        prompt_tokens = sum(count for count, _ in prompts)
        return await self._generate(
            request, asked, "completion", answers, prompt_tokens, asked.logprobs
        )

    async def _generate(
        self,
        request: web.Request,
        asked: ChatRequest | CompletionRequest,
        kind: chunks.Kind,
        answers: list[Answer],
        prompt_tokens: int,
        top: int | None,
    ) -> web.StreamResponse:
        prefix = "chatcmpl" if kind == "chat" else "cmpl"
        response_id = f"{prefix}-{request.headers.get('x-request-id') or uuid4().hex}"
        created = int(time.time())
        # The engine's own id: two requests of one client may carry the same x-request-id.
        call_id = uuid4().hex
        streamed = bool(asked.stream)
        call = self.pump.submit(call_id, answers, wants_tokens=streamed)

        def ending() -> dict[str, Any]:
            return chunks.ending(self.spec, answers, call.truths, prompt_tokens)

        try:
            if not streamed:
                await call.ended()
                return json_response(
                    chunks.unary(
                        kind,
                        response_id,
                        created,
                        self.spec.model,
                        answers,
                        ending(),
                        top_logprobs=top,
                    )
                )
            options = asked.stream_options
            frames = chunks.Frames(
                kind,
                response_id,
                created,
                self.spec.model,
                answers,
                top_logprobs=top,
                continuous_usage=options is not None and options.continuous,
            )
            struck = STRUCK.get()
            wire = FaultyWire(request, struck, self.faults) if struck else Wire(request)
            try:
                await wire.open()
                sent = [0] * len(answers)
                while pending := await call.tokens():
                    if not any(sent) and kind == "chat":
                        await wire.role([frames.role(answer) for answer in answers])
                    batch = []
                    for index in pending:
                        batch.append(frames.token(answers[index], sent[index]))
                        sent[index] += 1
                    await wire.content(batch)
                usage_asked = options is not None and options.include_usage
                await wire.finish([frames.final_usage(ending())] if usage_asked else [])
            except (SeveredError, ConnectionResetError):
                # Cut on purpose, or the client left between two tokens: no error of the server's.
                pass
            return wire.response
        finally:
            # Ended calls are unknown to the pump by now; this is for clients that left.
            self.pump.abort(call_id, answers)

    async def embeddings(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/embeddings: vectors drawn from a hash of the text."""
        asked = parse(await request.read(), EmbeddingRequest)
        self._check_model(asked.model)
        if not self.spec.embeddings:
            raise SimulatorError(400, "The model does not support Embeddings API")
        prompts = prompts_of(asked.input, self.spec)
        for tokens_in, _ in prompts:
            check_prompt(self.engine.truth, tokens_in)
        answers = [Answer(k, n, [""], "stop") for k, (n, _) in enumerate(prompts)]
        call_id = uuid4().hex
        call = self.pump.submit(call_id, answers, wants_tokens=False)
        try:
            await call.ended()
        finally:
            self.pump.abort(call_id, answers)
        size = asked.dimensions or DIMENSIONS
        data = [
            embedding(k, mark, self.spec.seed, size, asked.encoding_format)
            for k, (_, mark) in enumerate(prompts)
        ]
        ending = chunks.ending(self.spec, [], call.truths, sum(n for n, _ in prompts))
        body = {
            "id": f"embd-{call_id}",
            "object": "list",
            "created": int(time.time()),
            "model": self.spec.model,
            "data": data,
            "usage": ending["usage"],
            "simulated": ending["simulated"],
        }
        return json_response(msgspec.json.encode(body))

    async def models(self, _: web.Request) -> web.StreamResponse:
        """GET /v1/models."""
        card = {
            "id": self.spec.model,
            "object": "model",
            "created": self._started,
            "owned_by": "vllm",
            "root": self.spec.model,
            "parent": None,
            "max_model_len": self.engine.truth.context,
            "permission": [],
        }
        return json_response(msgspec.json.encode({"object": "list", "data": [card]}))

    async def tokenize(self, request: web.Request) -> web.StreamResponse:
        """POST /tokenize; `count` is what usage will say, `tokens` the simulator's own pieces."""
        asked = parse(await request.read(), TokenizeRequest)
        self._check_model(asked.model)
        if asked.messages is not None:
            chat = ChatRequest(messages=asked.messages)
            count, _ = prompt_of_chat(chat, self.spec)
            text = "\n".join(m.content for m in asked.messages if isinstance(m.content, str))
        elif asked.prompt is not None:
            text = asked.prompt
            count = self.spec.count(tokens.count_pieces(text))
        else:
            raise SimulatorError(400, "1 validation error: prompt or messages is required")
        body = {
            "count": count,
            "max_model_len": self.engine.truth.context,
            "tokens": tokens.encode(text),
            "token_strs": None,
        }
        return json_response(msgspec.json.encode(body))

    async def detokenize(self, request: web.Request) -> web.StreamResponse:
        """POST /detokenize."""
        asked = parse(await request.read(), DetokenizeRequest)
        self._check_model(asked.model)
        return json_response(msgspec.json.encode({"prompt": tokens.decode(asked.tokens)}))

    async def health(self, _: web.Request) -> web.StreamResponse:
        """GET /health: an empty 200, or 503 while the fault `unhealthy` is set."""
        if "unhealthy" in self.faults.active:
            self.faults.used("unhealthy")
            return web.Response(status=503)
        return web.Response()

    async def version(self, _: web.Request) -> web.StreamResponse:
        """GET /version."""
        return json_response(msgspec.json.encode({"version": VERSION}))

    async def scrape(self, _: web.Request) -> web.StreamResponse:
        """GET /metrics."""
        self.pump.settle_idle()
        body = self.metrics.render(self.engine).encode()
        return web.Response(body=body, headers={"content-type": CONTENT_TYPE})

    async def energy(self, _: web.Request) -> web.StreamResponse:
        """GET /simulator/energy: the counter, as a GPU's would be read."""
        self.pump.settle_idle()
        body = {
            "microjoules": self.pump.microjoules,
            "idle_microjoules": self.engine.idle_microjoules,
            "seconds": self.engine.seconds,
            "speed": self.spec.speed,
            "simulated": True,
        }
        return json_response(msgspec.json.encode(body))

    async def get_faults(self, _: web.Request) -> web.StreamResponse:
        """GET /simulator/faults: those that are set, how many requests each hit, and all kinds."""
        return json_response(msgspec.json.encode(self._fault_state()))

    async def put_faults(self, request: web.Request) -> web.StreamResponse:
        """PUT /simulator/faults: {"status": {"status": 503, "count": 2}, …} replaces all."""
        wanted = parse(await request.read(), dict[str, dict[str, Any]])
        try:
            self.faults.replace(wanted)
        except ValueError as error:
            raise SimulatorError(400, str(error)) from None
        return json_response(msgspec.json.encode(self._fault_state()))

    async def delete_faults(self, _: web.Request) -> web.StreamResponse:
        """DELETE /simulator/faults: all heal."""
        self.faults.clear()
        return web.Response(status=204)

    def _fault_state(self) -> dict[str, Any]:
        return {"active": self.faults.active, "served": self.faults.served}

    def _check_model(self, model: str | None) -> None:
        if model is not None and model != self.spec.model:
            raise SimulatorError(
                404, f"The model `{model}` does not exist.", "NotFoundError", "model"
            )


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def json_response(body: bytes, status: int = 200) -> web.Response:
    """A response with a JSON body."""
    return web.Response(body=body, status=status, headers={"content-type": "application/json"})
