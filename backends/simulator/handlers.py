"""vLLM's endpoints, answered from an engine."""

import time
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any, TypeVar
from uuid import uuid4

import msgspec
from aiohttp import web

from backends.simulator import chunks, tokens
from backends.simulator.answers import SimulatedCompletion, plan_chat, plan_completion
from backends.simulator.embeddings import DEFAULT_DIMENSIONS, build_embedding
from backends.simulator.engine import BatchingEngine
from backends.simulator.engine_request import RequestCost
from backends.simulator.faults import FaultInjector
from backends.simulator.metrics import CONTENT_TYPE, SimulatorMetrics
from backends.simulator.prefix_cache import SimulatedPrefixCache
from backends.simulator.prompts import check_prompt, measure_chat_prompt, measure_prompts
from backends.simulator.protocol import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    ModelRequest,
    SimulatorError,
    TokenizeRequest,
    parse_body,
)
from backends.simulator.scheduler_loop import SchedulerLoop
from backends.simulator.spec import SimulatorSpec
from backends.simulator.wire import ConnectionCutError, make_stream

VERSION = "0.32.0+simulated"
M = TypeVar("M", bound=ModelRequest)


class SimulatorHandlers:
    """One simulated server: what its endpoints share."""

    def __init__(self, spec: SimulatorSpec) -> None:
        self.spec = spec
        self.engine = BatchingEngine(spec.truth, spec.seed)
        self.metrics = SimulatorMetrics(spec.model, spec.speed)
        self.scheduler_loop = SchedulerLoop(self.engine, self.metrics, spec.speed)
        self.faults = FaultInjector(spec.seed)
        self.prefix_cache = SimulatedPrefixCache(spec.prefix_cache_tokens)
        self._started = int(time.time())

    def list_routes(self) -> list[web.RouteDef]:
        """Every endpoint."""
        return [
            web.post("/v1/chat/completions", self.post_chat),
            web.post("/v1/completions", self.post_completions),
            web.post("/v1/embeddings", self.post_embeddings),
            web.get("/v1/models", self.get_models),
            web.post("/tokenize", self.post_tokenize),
            web.post("/detokenize", self.post_detokenize),
            web.get("/health", self.get_health),
            web.get("/version", self.get_version),
            web.get("/metrics", self.get_metrics),
            web.get("/simulator/energy", self.get_energy),
            web.get("/simulator/faults", self.get_faults),
            web.put("/simulator/faults", self.put_faults),
            web.delete("/simulator/faults", self.delete_faults),
        ]

    async def post_chat(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/chat/completions."""
        asked = await self.read_body(request, ChatRequest)
        tokens_in, mark = measure_chat_prompt(asked, self.spec)
        answers = plan_chat(asked, self.spec, self.engine.truth, tokens_in, mark)
        answers = self.prefix_cache.cache_chat(asked, answers)
        top = (asked.top_logprobs or 0) if asked.logprobs else None
        return await self._generate_response(request, asked, "chat", answers, tokens_in, top)

    async def post_completions(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/completions."""
        asked = await self.read_body(request, CompletionRequest)
        prompts = measure_prompts(asked.prompt, self.spec)
        answers = plan_completion(asked, self.spec, self.engine.truth, prompts)
        prompt_tokens = sum(count for count, _ in prompts)
        return await self._generate_response(
            request, asked, "completion", answers, prompt_tokens, asked.logprobs
        )

    async def _generate_response(
        self,
        request: web.Request,
        asked: ChatRequest | CompletionRequest,
        kind: chunks.CompletionKind,
        answers: list[SimulatedCompletion],
        prompt_tokens: int,
        top: int | None,
    ) -> web.StreamResponse:
        prefix = "chatcmpl" if kind == "chat" else "cmpl"
        response_id = f"{prefix}-{request.headers.get('x-request-id') or uuid4().hex}"
        created = int(time.time())
        name = self.spec.model
        if not asked.stream:
            costs = await self.scheduler_loop.run_call(answers)
            tail = chunks.report_cost(self.spec, answers, costs, prompt_tokens)
            return json_response(
                chunks.format_unary(
                    kind, response_id, created, name, answers, tail, top_logprobs=top
                )
            )
        # The engine's own id: two requests of one client may carry the same x-request-id.
        call_id = uuid4().hex
        call = self.scheduler_loop.submit_call(call_id, answers, wants_tokens=True)
        try:
            options = asked.stream_options
            frames = chunks.StreamFrames(
                kind,
                response_id,
                created,
                name,
                answers,
                top_logprobs=top,
                continuous_usage=options is not None and options.wants_continuous_usage,
            )
            wire = make_stream(request, self.faults)
            try:
                await wire.open()
                sent = [0] * len(answers)
                while pending := await call.wait_for_tokens():
                    if not any(sent) and kind == "chat":
                        await wire.write_role([frames.format_role(answer) for answer in answers])
                    batch = []
                    for index in pending:
                        batch.append(frames.format_token(answers[index], sent[index]))
                        sent[index] += 1
                    await wire.write_content(batch)
                closing = []
                if options is not None and options.include_usage:
                    tail = chunks.report_cost(self.spec, answers, call.costs, prompt_tokens)
                    closing = [frames.format_final_usage(tail)]
                await wire.write_end(closing)
            except (ConnectionCutError, ConnectionResetError):
                # Cut on purpose, or the client left between two tokens: no error of the server's.
                pass
            return wire.response
        finally:
            # Ended calls are unknown to the pump by now; this is for clients that left.
            self.scheduler_loop.abort_call(call_id, answers)

    async def post_embeddings(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/embeddings: vectors drawn from a hash of the text."""
        asked = await self.read_body(request, EmbeddingRequest)
        if not self.spec.embeddings:
            raise SimulatorError(
                HTTPStatus.BAD_REQUEST, "The model does not support Embeddings API"
            )
        prompts = measure_prompts(asked.input, self.spec)
        costs = await self.read_prompts([tokens_in for tokens_in, _ in prompts])
        size = asked.dimensions or DEFAULT_DIMENSIONS
        data = [
            build_embedding(k, mark, self.spec.seed, size, asked.encoding_format)
            for k, (_, mark) in enumerate(prompts)
        ]
        ending = chunks.report_cost(self.spec, [], costs, sum(n for n, _ in prompts))
        body = {
            "id": f"embd-{uuid4().hex}",
            "object": "list",
            "created": int(time.time()),
            "model": self.spec.model,
            "data": data,
            "usage": ending["usage"],
            "simulated": ending["simulated"],
        }
        return json_response(msgspec.json.encode(body))

    async def get_models(self, _: web.Request) -> web.StreamResponse:
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

    async def post_tokenize(self, request: web.Request) -> web.StreamResponse:
        """POST /tokenize; `count` is what usage will say, `tokens` the simulator's own pieces."""
        asked = await self.read_body(request, TokenizeRequest)
        if asked.messages is not None:
            chat = ChatRequest(messages=asked.messages)
            count, _ = measure_chat_prompt(chat, self.spec)
            text = "\n".join(m.content for m in asked.messages if isinstance(m.content, str))
        elif asked.prompt is not None:
            text = asked.prompt
            count = self.spec.count_tokens(tokens.count_pieces(text))
        else:
            raise SimulatorError(
                HTTPStatus.BAD_REQUEST, "1 validation error: prompt or messages is required"
            )
        body = {
            "count": count,
            "max_model_len": self.engine.truth.context,
            "tokens": tokens.encode_text(text),
            "token_strs": None,
        }
        return json_response(msgspec.json.encode(body))

    async def post_detokenize(self, request: web.Request) -> web.StreamResponse:
        """POST /detokenize."""
        asked = await self.read_body(request, DetokenizeRequest)
        return json_response(msgspec.json.encode({"prompt": tokens.decode_ids(asked.tokens)}))

    async def get_health(self, _: web.Request) -> web.StreamResponse:
        """GET /health: an empty 200, or 503 while the fault `unhealthy` is set."""
        if "unhealthy" in self.faults.active:
            self.faults.count_use("unhealthy")
            return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE)
        return web.Response()

    async def get_version(self, _: web.Request) -> web.StreamResponse:
        """GET /version."""
        return json_response(msgspec.json.encode({"version": VERSION}))

    async def get_metrics(self, _: web.Request) -> web.StreamResponse:
        """GET /metrics."""
        self.scheduler_loop.account_idle()
        body = self.metrics.render_text(self.engine).encode()
        return web.Response(body=body, headers={"content-type": CONTENT_TYPE})

    async def get_energy(self, _: web.Request) -> web.StreamResponse:
        """GET /simulator/energy: the counter, as a GPU's would be read."""
        self.scheduler_loop.account_idle()
        body = {
            "microjoules": self.scheduler_loop.microjoules,
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
        wanted = parse_body(await request.read(), dict[str, dict[str, Any]])
        try:
            self.faults.replace_faults(wanted)
        except ValueError as error:
            raise SimulatorError(HTTPStatus.BAD_REQUEST, str(error)) from None
        return json_response(msgspec.json.encode(self._fault_state()))

    async def delete_faults(self, _: web.Request) -> web.StreamResponse:
        """DELETE /simulator/faults: all heal."""
        self.faults.clear_faults()
        return web.Response(status=HTTPStatus.NO_CONTENT)

    def _fault_state(self) -> dict[str, Any]:
        return {"active": self.faults.active, "served": self.faults.served}

    async def read_prompts(self, sizes: Sequence[int]) -> list[RequestCost]:
        """Have the engine read prompts of so many tokens and write nothing; return their costs."""
        for tokens_in in sizes:
            check_prompt(self.engine.truth, tokens_in)
        answers = [SimulatedCompletion(k, n, [""], "stop") for k, n in enumerate(sizes)]
        return await self.scheduler_loop.run_call(answers)

    async def read_body(self, request: web.Request, kind: type[M]) -> M:
        """Decode a body. Raises SimulatorError where it is malformed or names another model."""
        asked = parse_body(await request.read(), kind)
        self.check_model(asked.model)
        return asked

    def check_model(self, model: str | None) -> None:
        """Raise SimulatorError where another model is named."""
        if model is not None and model != self.spec.model:
            raise SimulatorError(
                HTTPStatus.NOT_FOUND,
                f"The model `{model}` does not exist.",
                "NotFoundError",
                "model",
            )


RequestHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def json_response(body: bytes, status: int = HTTPStatus.OK) -> web.Response:
    """A response with a JSON body."""
    return web.Response(body=body, status=status, headers={"content-type": "application/json"})
