"""Headers that the config lets through, in both directions; every other one stays behind."""

import asyncio
import re

import msgspec
import pytest
import yaml
from aiohttp import web

from gateway.config import ConfigError, load_config, parse_config
from gateway.headers_config import HeadersConfig
from gateway.service.client.passed_headers import fold_names, join_headers, select_headers
from tests.integration.harness import CHAT, STREAM, model, serve
from tests.integration.scripted import DONE_EVENT, chat, delta
from tests.integration.typed import message, response

PASSED = HeadersConfig(to_backends=("X-Team", "baggage"), to_clients=("X-Shard", "server-timing"))
MINE = {"x-team": "search", "x-other": "stays", "cookie": "a=b", "authorization": "Bearer mine"}
THEIRS = {"x-shard": "7", "set-cookie": "a=b", "x-internal": "stays", "retry-after": "9"}


async def answer(request, seen):
    """Answer any API properly, with headers of the backend's own."""
    body = seen.json
    if request.path == "/tokenize":
        return web.json_response({"tokens": [1]}, headers=THEIRS)
    if request.path == "/v1/responses":
        return web.json_response(response(body), headers=THEIRS)
    if request.path == "/v1/messages":
        return web.json_response(message(body), headers=THEIRS)
    if not body.get("stream"):
        return web.json_response(chat(), headers=THEIRS)
    told = THEIRS | {"content-type": "text/event-stream"}
    streamed = web.StreamResponse(headers=told)
    await streamed.prepare(request)
    await streamed.write(delta(content="Hi") + delta(finish_reason="stop") + DONE_EVENT)
    return streamed


ASKED = [
    ("/v1/chat/completions", CHAT),
    ("/v1/chat/completions", STREAM),
    ("/v1/responses", {"model": "auto", "input": "Hello"}),
    ("/v1/messages", CHAT | {"max_tokens": 5}),
    ("/tokenize", {"model": "phi-3-mini", "prompt": "Hello"}),
]


@pytest.mark.parametrize(("path", "body"), ASKED)
async def test_what_is_named_passes_and_nothing_else(world, path, body):
    backend = await world.recorder(answer)
    gate = await world.gate(model("phi-3-mini", backend), headers=PASSED)
    got = await gate.ask(body, MINE, path)
    assert got.status == 200, got.raw
    sent = backend.seen[-1].headers
    assert sent["x-team"] == "search"
    assert not {"x-other", "cookie", "authorization", "baggage"} & {name.lower() for name in sent}
    assert got.headers["x-shard"] == "7"
    assert not {"set-cookie", "x-internal", "retry-after"} & {name.lower() for name in got.headers}


@pytest.mark.parametrize(("path", "body"), ASKED)
async def test_by_default_nothing_passes(world, path, body):
    backend = await world.recorder(answer)
    gate = await world.gate(model("phi-3-mini", backend))
    got = await gate.ask(body, MINE, path)
    assert got.status == 200, got.raw
    assert not {"x-team", "x-other"} & {name.lower() for name in backend.seen[-1].headers}
    assert not THEIRS.keys() & {name.lower() for name in got.headers}


async def test_every_attempt_carries_them(world):
    async def fail(_, __):
        return web.json_response({"error": {"message": "no"}}, status=503)

    backends = [await world.recorder(fail), await world.recorder(fail)]
    gate = await world.gate(model("phi-3-mini", *backends), headers=PASSED)
    assert (await gate.ask(CHAT, MINE)).status == 503
    assert [one.headers["x-team"] for each in backends for one in each.seen] == ["search"] * 2


async def test_a_list_over_several_lines_is_one_list(world):
    backend = await world.recorder(answer)
    gate = await world.gate(model("phi-3-mini", backend), headers=PASSED)
    lines = [("x-team", "a"), ("baggage", "k=v"), ("x-team", "b")]
    assert (await gate.ask(CHAT, lines)).status == 200
    sent = backend.seen[-1].headers
    assert (sent.getall("x-team"), sent.getall("baggage")) == (["a, b"], ["k=v"])


async def test_a_change_is_in_force_with_the_next_request(world, tmp_path):
    backend = await world.recorder(answer)
    models = [{"name": "phi-3-mini", "context": 4096, "backends": [{"url": backend.url}]}]
    path = tmp_path / "gateway.yaml"
    path.write_text(yaml.safe_dump({"models": models}))
    async with serve(load_config(path), path) as gate:
        assert "x-shard" not in (await gate.ask(CHAT, MINE)).headers
        passed = msgspec.to_builtins(PASSED)
        path.write_text(yaml.safe_dump({"models": models, "headers": passed}))
        assert await gate.runtime.reloader.reload_config()
        assert (await gate.ask(CHAT, MINE)).headers["x-shard"] == "7"
        assert backend.seen[-1].headers["x-team"] == "search"


async def test_a_value_that_would_begin_another_header_does_not_pass(world):
    backend = await world.recorder(answer)
    gate = await world.gate(model("phi-3-mini", backend), headers=PASSED)
    host, port = re.fullmatch(r"http://(.*):(\d+)", gate.url).groups()
    body = b'{"model": "auto", "messages": [{"role": "user", "content": "x"}]}'
    for value in (b"a\tb", b"a\r\n x-folded: b", b"a\nx-smuggled: b", b"a\rx-smuggled: b", b"\x01"):
        reader, writer = await asyncio.open_connection(host, int(port))
        head = (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-team: %b\r\n"
        )
        head += b"content-length: %d\r\n\r\n"
        writer.write(head % (value, len(body)) + body)
        told = await reader.read()
        writer.close()
        assert told.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 400 ")), (value, told)
    assert backend.seen
    names = {name.lower() for seen in backend.seen for name in seen.headers}
    assert not {"x-folded", "x-smuggled"} & names
    assert {seen.headers.get("x-team") for seen in backend.seen} <= {"a\tb", None}


def test_control_characters_are_left_out():
    wanted = fold_names(["A", "b"])
    headers = [(b"a", b"x\r\ny: z"), (b"a", b"\x00"), (b"b", b"\xe9 \t"), (b"c", b"no")]
    assert select_headers(headers, wanted) == [(b"b", b"\xe9 \t")]
    assert join_headers(select_headers(headers, wanted)) == {"b": "\xe9 \t"}
    assert fold_names([]) is None


REFUSED = {
    "to_backends": [
        "Authorization", "cookie", "X-Api-Key", "host", "content-length", "Transfer-Encoding",
        "connection", "x-request-id", "traceparent", "x-joulegate-policy", "proxy-authorization",
        "accept-encoding", "expect", "a b", "", "x:y",
    ],
    "to_clients": [
        "set-cookie", "content-length", "content-type", "connection", "X-Request-Id", "retry-after",
        "x-joulegate-model", "access-control-allow-origin", "x-ratelimit-limit-requests", "a\nb",
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "name"), [(key, name) for key, names in REFUSED.items() for name in names]
)
def test_what_must_not_pass_is_refused_with_the_reason(key, name):
    text = yaml.safe_dump(
        {
            "models": [{"name": "a", "context": 9, "backends": [{"url": "http://b:1"}]}],
            "headers": {key: [name]},
        }
    )
    with pytest.raises(ConfigError, match=rf"headers: {key}: .*(cannot pass|not the name)"):
        parse_config(text, "g", {})
