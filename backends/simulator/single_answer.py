"""One answer of the engine's, sent as a body or as an API's events."""

from collections.abc import Callable, Iterable
from typing import Any
from uuid import uuid4

import msgspec
from aiohttp import web

from backends.simulator import chunks
from backends.simulator.answers import SimulatedCompletion
from backends.simulator.handlers import SimulatorHandlers, json_response
from backends.simulator.wire import ConnectionCutError, make_stream


async def serve_answer(
    server: SimulatorHandlers,
    request: web.Request,
    answer: SimulatedCompletion,
    tokens_in: int,
    streamed: bool,
    build_whole: Callable[[dict[str, Any]], dict[str, Any]],
    format_opening: Callable[[], bytes],
    format_token: Callable[[int], bytes],
    format_closing: Callable[[dict[str, Any]], tuple[Iterable[bytes], bytes]],
) -> web.StreamResponse:
    """Let the engine work, and answer with a body or with events."""
    answers = [answer]
    if not streamed:
        costs = await server.scheduler_loop.run_call(answers)
        tail = chunks.report_cost(server.spec, answers, costs, tokens_in)
        return json_response(msgspec.json.encode(build_whole(tail)))
    call_id = uuid4().hex
    call = server.scheduler_loop.submit_call(call_id, answers, wants_tokens=True)
    try:
        wire = make_stream(request, server.faults)
        try:
            await wire.open()
            sent = 0
            while pending := await call.wait_for_tokens():
                if not sent:
                    await wire.write_role([format_opening()])
                frames = [format_token(sent + k) for k in range(len(pending))]
                sent += len(pending)
                await wire.write_content(frames)
            tail = chunks.report_cost(server.spec, answers, call.costs, tokens_in)
            closing, last = format_closing(tail)
            await wire.write_end(list(closing), last)
        except (ConnectionCutError, ConnectionResetError):
            # Cut on purpose, or the client left between two tokens: no error of the server's.
            pass
        return wire.response
    finally:
        server.scheduler_loop.abort_call(call_id, answers)
