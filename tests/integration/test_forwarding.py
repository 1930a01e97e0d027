"""What a backend is sent and what of its answer the client gets, byte for byte."""

import json

import msgspec
import pytest
from aiohttp import web

from gateway.config import BackendConfig
from tests.integration.harness import HELLO, model
from tests.integration.scripted import DONE_EVENT, chat, delta, stream, usage

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
}
FIELDS = [
    {"future_field": {"deep": [1, 2.50, -0.0, 1e-7, 12345678901234567890123, "\u00e9\u4e16"]}},
    {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False},
    {"logprobs": True, "top_logprobs": 3},
    {"n": 3, "best_of": None, "temperature": 0, "seed": -1, "stop": ["a", "\n"]},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}},
    {"structured_outputs": {"regex": "^\\d+$"}, "guided_json": {"type": "object"}},
    {"stream_options": {"x": 1}},
    {"metadata": {"joulegate": "stays", "model": "stays"}, "user": "joulegate"},
    {"chat_template_kwargs": {"enable_thinking": False}, "priority": 0, "cache_salt": "s"},
]
MESSAGES = [
    [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, IMAGE]}],
    [
        {"role": "system", "content": "s", "name": "n"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
        ]},
        {"role": "tool", "tool_call_id": "c", "content": "42", "unknown": [None, True]},
    ],
]  # fmt: skip


def members(raw):
    """The raw text of each member of an object."""
    found = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    return {name: bytes(text).strip() for name, text in found.items()}


async def test_unknown_fields_reach_the_backend_byte_for_byte(world):
    backend = await world.recorder()
    gate = await world.gate(model("phi-3-mini", backend))
    for fields in [*FIELDS, *({"messages": messages} for messages in MESSAGES)]:
        body = {"messages": HELLO, "model": "phi-3-mini", **fields}
        for indent in (None, 1):
            raw = json.dumps(body, indent=indent, ensure_ascii=bool(indent)).encode()
            got = await gate.ask(raw)
            assert got.status == 200, got.raw
            sent = backend.seen[-1].body
            assert list(members(sent)) == list(members(raw))
            assert members(sent) == members(raw)


async def test_joulegate_is_stripped_and_the_model_is_named_as_the_backend_calls_it(world):
    backend = await world.recorder()
    gate = await world.gate(model("phi-3-mini", backend, served_name="microsoft/Phi-3"))
    for name in ("auto", "joulegate/auto", "auto:energy", "phi-3-mini"):
        body = {"model": name, "messages": HELLO, "joulegate": {"weights": {"energy": 1}}}
        got = await gate.ask(body)
        assert (got.status, got.json["model"]) == (200, "phi-3-mini")
        assert backend.seen[-1].json == {"model": "microsoft/Phi-3", "messages": HELLO}


async def test_clients_headers_stay_behind_and_the_backends_key_is_sent(world):
    backend = await world.recorder()
    gate = await world.gate(model("phi-3-mini", BackendConfig(backend.url, api_key="s3cret")))
    mine = {
        "authorization": "Bearer mine",
        "cookie": "a=b",
        "x-joulegate-weight-energy": "1",
        "x-request-id": "abc",
        "host": "elsewhere.example",
        "x-forwarded-for": "1.2.3.4",
    }
    assert (await gate.ask(headers=mine)).status == 200
    headers = backend.seen[-1].headers
    assert headers["authorization"] == "Bearer s3cret"
    assert headers["host"] == backend.url.removeprefix("http://")
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"].startswith("abc-")
    assert not {"cookie", "x-joulegate-weight-energy", "x-forwarded-for"} & set(headers)
    plain = await world.recorder()
    gate = await world.gate(model("phi-3-mini", plain))
    assert (await gate.ask(headers=mine)).status == 200
    assert "authorization" not in plain.seen[-1].headers


STREAM_OPTIONS = [
    (None, {"include_usage": True}),
    ({}, {"include_usage": True}),
    ({"include_usage": False}, {"include_usage": True}),
    ({"include_usage": None, "future": [1]}, {"include_usage": True, "future": [1]}),
    ({"include_usage": False, "continuous_usage_stats": True}, {"include_usage": True}),
    ({"include_usage": True}, {"include_usage": True}),
    ({"include_usage": True, "continuous_usage_stats": True},) * 2,
]


async def test_stream_options_are_merged(world):
    backend = await world.recorder()
    gate = await world.gate(model("phi-3-mini", backend))
    plain = {"model": "auto", "messages": HELLO, "stream": True}
    got = await gate.ask(plain)
    assert b'"usage"' not in got.raw
    assert backend.seen[-1].json["stream_options"] == {"include_usage": True}
    for given, sent in STREAM_OPTIONS:
        body = plain | {"stream_options": given}
        got = await gate.ask(body)
        assert got.status == 200
        assert backend.seen[-1].json["stream_options"] == sent
        asked = bool(given) and given.get("include_usage") is True
        assert (b'"usage"' in got.raw) is asked
        assert got.events[-1] == b"[DONE]"
        # Without a stream the options are none of the gateway's business.
        assert (await gate.ask(body | {"stream": False})).status == 200
        assert backend.seen[-1].json["stream_options"] == given


async def test_a_stream_passes_as_it_is_but_for_the_usage_that_was_not_asked_for(world):
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
    events = [
        delta(role="assistant", content=""),
        delta(reasoning_content="hm"),
        delta(content='He said "usage":{ and data: [DONE] and "error"\n\n'),
        delta(tool_calls=[call]),
        b": a comment\n\n",
        delta(finish_reason="tool_calls"),
    ]

    async def answer(request, _):
        return await stream(request, *events, usage(), DONE_EVENT)

    gate = await world.gate(model("phi-3-mini", await world.recorder(answer)))
    body = {"model": "auto", "messages": HELLO, "stream": True}
    assert (await gate.ask(body)).raw == b"".join(events) + DONE_EVENT
    asked = await gate.ask(body | {"stream_options": {"include_usage": True}})
    assert asked.raw == b"".join(events) + usage() + DONE_EVENT


async def test_crlf_line_ends_are_understood(world):
    events = b"".join([delta(content="Hi"), delta(finish_reason="stop"), usage(), DONE_EVENT])

    async def answer(request, _):
        return await stream(request, events.replace(b"\n", b"\r\n"))

    gate = await world.gate(model("phi-3-mini", await world.recorder(answer)))
    got = await gate.ask({"model": "auto", "messages": HELLO, "stream": True})
    assert (got.status, got.error, got.text) == (200, None, "Hi")
    assert got.raw.endswith(DONE_EVENT)


@pytest.mark.parametrize("called", ["org/Phi-3", "the-first-of-its-names"])
async def test_the_answer_names_the_model_as_clients_know_it(world, called):
    # vLLM answers with the first of its --served-model-name, whichever was asked for.
    async def answer(request, seen):
        if seen.json.get("stream"):
            words = [delta(called, content=f'"model":"{called}" {k}') for k in range(3)]
            return await stream(request, *words, delta(called, finish_reason="stop"), DONE_EVENT)
        return web.json_response(chat(called, f'the "model": "{called}"'))

    gate = await world.gate(
        model("phi-3-mini", await world.recorder(answer), served_name="org/Phi-3")
    )
    explain = {"x-joulegate-explain": "true"}
    for headers in ({}, explain):
        got = await gate.ask(headers=headers)
        assert got.json["model"] == "phi-3-mini"
        assert got.json["choices"][0]["message"]["content"] == f'the "model": "{called}"'
        got = await gate.ask({"model": "auto", "messages": HELLO, "stream": True}, headers)
        assert {chunk["model"] for chunk in got.chunks} == {"phi-3-mini"}
        assert got.text == "".join(f'"model":"{called}" {k}' for k in range(3))


async def test_a_unary_answer_passes_byte_for_byte(world):
    body = json.dumps(chat(extra={"kept": [1.0, 1e-9]}), indent=2).encode() + b"\n"

    async def answer(_, __):
        return web.Response(body=body, content_type="application/json")

    gate = await world.gate(model("phi-3-mini", await world.recorder(answer)))
    got = await gate.ask()
    assert got.raw == body
    assert got.headers["content-length"] == str(len(body))


async def test_vllms_load_header_goes_both_ways(world):
    async def answer(_, seen):
        asked = seen.headers.get("endpoint-load-metrics-format")
        told = {"endpoint-load-metrics": f'{asked} {{"named_metrics":{{}}}}'}
        return web.json_response(chat(), headers=told)

    backend = await world.recorder(answer)
    gate = await world.gate(model("phi-3-mini", backend))
    got = await gate.ask(headers={"endpoint-load-metrics-format": "JSON"})
    assert got.headers["endpoint-load-metrics"] == 'JSON {"named_metrics":{}}'
    plain = await gate.ask()
    assert "endpoint-load-metrics" not in plain.headers
    assert "endpoint-load-metrics-format" not in backend.seen[-1].headers


async def test_the_fingerprint_outlives_the_usage_chunk(world):
    async def answer(request, _):
        said = usage()[:-3] + b',"system_fingerprint":"fp"}\n\n'
        return await stream(
            request, delta(content="Hi"), delta(finish_reason="stop"), said, DONE_EVENT
        )

    gate = await world.gate(model("phi-3-mini", await world.recorder(answer)))
    got = await gate.ask({"model": "auto", "messages": HELLO, "stream": True})
    assert [chunk.get("system_fingerprint") for chunk in got.chunks[:-1]] == [None]
    assert json.loads(got.events[-2])["system_fingerprint"] == "fp"
    assert b'"usage"' not in got.raw


async def test_a_request_that_names_no_model_gets_the_configs(world):
    phi, mistral = await world.recorder(), await world.recorder()
    models = (model("phi-3-mini", phi), model("mistral-7b", mistral))
    for default, sent in (("phi-3-mini", phi), ("mistral-7b", mistral)):
        gate = await world.gate(*models, default_model=default)
        before = len(sent.seen)
        assert (await gate.ask({"messages": HELLO})).json["model"] == default
        assert len(sent.seen) == before + 1
