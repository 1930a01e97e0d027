"""vLLM's other endpoints: to the named model, or refused with a reason; none a bare 404."""

import itertools

import aiohttp
import pytest
from aiohttp import web

from gateway.config import RetryConfig
from gateway.service.request.named_endpoints import NAMED, REFUSED
from tests.integration.harness import model, until
from tests.integration.scripted import event, stream
from tests.integration.typed import response

JSON_ENDPOINTS = [e.url_path for e in NAMED if e.method == "POST" and not e.multipart]
FORMS = [e.url_path for e in NAMED if e.multipart]


async def answering(_, seen):
    if seen.path == "/tokenizer_info":
        return web.json_response({"tokenizer_class": "Tiny"})
    return web.json_response({"id": "x-1", "model": seen.json["model"], "data": []})


def two_models(small, large):
    return (
        model("phi-3-mini", small, served_name="microsoft/phi"),
        model("mistral-7b", large, served_name="mistral"),
    )


@pytest.mark.parametrize("path", JSON_ENDPOINTS)
async def test_a_named_model_is_sent_what_came(world, path):
    small, large = await world.recorder(answering), await world.recorder(answering)
    gate = await world.gate(*two_models(small, large))
    got = await gate.ask({"model": "mistral-7b", "anything": [1]}, path=path)
    assert got.status == 200
    assert got.json["model"] == "mistral-7b"
    assert got.headers["x-joulegate-model"] == "mistral-7b"
    (seen,) = large.seen
    assert (seen.path, seen.json) == (path, {"model": "mistral", "anything": [1]})
    assert not small.seen
    assert await gate.metric("joulegate_requests_total", model="mistral-7b", code="200") == 1
    assert (await gate.record(got))["model"] == "mistral-7b"


async def test_nobody_is_routed_there(world):
    gate = await world.gate(*two_models(await world.recorder(), await world.recorder()))
    for asked, path in (
        ({"model": "auto", "prompt": "x"}, "/tokenize"),
        ({"prompt": "x"}, "/tokenize"),
        ({"model": "nobody"}, "/score"),
    ):
        got = await gate.ask(asked, path=path)
        assert got.status in {400, 404}
        assert got.json["error"]["param"] == "model"
    assert (await gate.get("/tokenizer_info")).status == 400


async def test_one_model_needs_no_name(world):
    backend = await world.recorder(answering)
    gate = await world.gate(model("phi-3-mini", backend, served_name="microsoft/phi"))
    assert (await gate.ask({"prompt": "x"}, path="/tokenize")).status == 200
    assert backend.seen[-1].json == {"prompt": "x", "model": "microsoft/phi"}
    assert (await gate.get("/tokenizer_info")).json == {"tokenizer_class": "Tiny"}
    assert (await gate.get("/tokenizer_info?model=phi-3-mini")).status == 200


async def test_who_names_no_model_gets_the_default_one_of_several(world):
    """As lm-eval's remote tokeniser does."""
    small, large = await world.recorder(answering), await world.recorder(answering)
    gate = await world.gate(*two_models(small, large), default_model="mistral-7b")
    got = await gate.ask({"prompt": "x"}, path="/tokenize")
    assert (got.status, got.headers["x-joulegate-model"]) == (200, "mistral-7b")
    assert large.seen[-1].json == {"prompt": "x", "model": "mistral"}
    got = await gate.get("/tokenizer_info")
    assert (got.json, got.headers["x-joulegate-model"]) == (
        {"tokenizer_class": "Tiny"},
        "mistral-7b",
    )
    assert (await gate.get("/tokenizer_info?model=phi-3-mini")).status == 200
    assert (len(small.seen), len(large.seen)) == (1, 2)


@pytest.mark.parametrize("path", FORMS)
async def test_a_form_is_sent_on_with_the_servers_name_for_the_model(world, path):
    async def hearing(_, seen):
        assert seen.headers["content-type"].startswith("multipart/form-data")
        assert seen.body.count(sound) == 1
        assert b"phi-3-mini" not in seen.body
        assert b'name="model"\r\n\r\nmicrosoft/phi\r\n--' in seen.body
        return web.json_response({"text": "heard"})

    sound = bytes(range(256)) * 40 + b"\r\n--nothing\r\nmodel"
    small, large = await world.recorder(hearing), await world.recorder(hearing)
    gate = await world.gate(*two_models(small, large))
    form = aiohttp.FormData()
    form.add_field("file", sound, filename="a.wav", content_type="audio/wav")
    form.add_field("language", "en")
    form.add_field("model", "phi-3-mini")
    async with gate.http.post(path, data=form) as got:
        assert await got.json() == {"text": "heard"}
        assert got.headers["x-joulegate-model"] == "phi-3-mini"
    assert not large.seen


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form",
        b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nphi-3-mini',
        b'--b\r\ncontent-disposition: form-data; name="file"\r\n\r\nx\r\n--b--\r\n',
        b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\n\xff\r\n--b--\r\n',
        b"--b\r\nno head\r\n--b--\r\n",
    ],
)
async def test_a_bad_form_is_a_400(world, body):
    gate = await world.gate(*two_models(await world.recorder(), await world.recorder()))
    headers = {"content-type": "multipart/form-data; boundary=b"}
    for path in FORMS:
        got = await gate.ask(body, headers, path=path)
        assert got.status == 400
    got = await gate.ask(body, {"content-type": "application/json"}, path=FORMS[0])
    assert got.status == 400


async def test_a_form_needs_no_name_where_one_model_is(world):
    async def hearing(_, seen):
        assert seen.body.count(b'name="model"\r\n\r\nmicrosoft/phi\r\n--') == 1
        return web.json_response({"text": "heard"})

    backend = await world.recorder(hearing)
    gate = await world.gate(model("phi-3-mini", backend, served_name="microsoft/phi"))
    for fields in ({}, {"model": ""}, {"model": "phi-3-mini"}):
        form = aiohttp.FormData(fields)
        form.add_field("file", b"sound", filename="a.wav")
        async with gate.http.post(FORMS[0], data=form) as got:
            assert await got.json() == {"text": "heard"}


async def test_what_is_no_json_keeps_its_type(world):
    async def telling(_, seen):
        assert seen.body
        return web.Response(text="1\n00:00 hello", content_type="text/vtt")

    gate = await world.gate(model("phi-3-mini", await world.recorder(telling)))
    got = await gate.ask({"input": "x"}, path="/pooling")
    assert (got.status, got.raw) == (200, b"1\n00:00 hello")
    assert got.headers["content-type"].startswith("text/vtt")


async def test_a_stream_is_passed_on_and_its_break_is_told(world):
    pieces = [event({"choices": [{"delta": {"content": "a"}}]}), event({"x": 1})]

    async def whole(request, _):
        return await stream(request, *pieces, b"data: [DONE]\n\n")

    async def broken(request, _):
        return await stream(request, pieces[0], whole=False)

    good, bad = await world.recorder(whole), await world.recorder(broken)
    gate = await world.gate(*two_models(good, bad))
    ask = {"model": "phi-3-mini", "stream": True}
    got = await gate.ask(ask, path="/inference/v1/generate")
    assert got.raw == b"".join(pieces) + b"data: [DONE]\n\n"
    got = await gate.ask(ask | {"model": "mistral-7b"}, path="/inference/v1/generate")
    assert got.events[0] == pieces[0][6:-2]
    assert b'"stream_interrupted"' in got.raw
    assert got.error is not None


async def test_a_failure_is_the_next_backends_to_answer(world):
    async def failing(*_):
        return web.json_response({"error": {"message": "no"}}, status=503)

    async def page(*_):
        return web.Response(text="<html>", content_type="text/html")

    good = await world.recorder(answering)
    bad = [await world.recorder(failing), await world.recorder(page)]
    gate = await world.gate(model("phi-3-mini", *bad, good), retry=RetryConfig(budget_start=100))
    for _ in range(6):
        got = await gate.ask({"query": "a", "documents": ["b"]}, path="/v1/rerank")
        assert got.status == 200
    assert all(backend.seen for backend in bad)


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_an_endpoint_that_a_model_lacks_is_told_and_blames_nobody(world, status):
    async def lacking(*_):
        error = {"message": "Not Found", "type": "Not Found", "param": None, "code": status}
        return web.json_response({"error": error}, status=status)

    backend = await world.recorder(lacking)
    gate = await world.gate(model("phi-3-mini", backend))
    for _ in range(8):
        got = await gate.ask({"input": "x"}, path="/pooling")
        assert (got.status, got.json["error"]["code"]) == (404, "endpoint_not_served")
    assert "does not serve /pooling" in got.json["error"]["message"]
    assert len(backend.seen) == 8


async def test_what_is_not_offered_says_why(world):
    backend = await world.recorder()
    gate = await world.gate(model("phi-3-mini", backend))
    for path, method in itertools.product(REFUSED, ("GET", "POST")):
        got = await gate.ask(b"{}" if method == "POST" else None, path=path, method=method)
        assert (got.status, got.json["error"]["code"]) == (403, "not_offered")
        assert got.json["error"]["message"].startswith(f"{path} is ")
    assert not backend.seen


async def test_the_gateways_own_version_ping_and_load(world):
    gate = await world.gate(model("phi-3-mini", await world.recorder()))
    assert (await gate.get("/version")).json["version"]
    assert (await gate.get("/ping")).raw == b""
    assert (await gate.ask(b"", path="/ping")).status == 200
    assert (await gate.get("/load")).json == {"server_load": 0}


async def test_a_response_is_fetched_and_cancelled_at_its_backend(world):
    async def keeping(request, seen):
        if seen.path == "/v1/responses":
            made = response(seen.json)
            kept[made["id"]] = made
            return web.json_response(made)
        found = kept.get(seen.path.split("/")[3])
        if request.method == "POST":
            return web.json_response({**found, "status": "cancelled"})
        if request.query.get("stream"):
            assert request.query["starting_after"] == "3"
            return await stream(request, b"event: a\ndata: {}\n\n")
        return web.json_response(found)

    kept = {}
    backends = [await world.recorder(keeping) for _ in range(3)]
    gate = await world.gate(model("phi-3-mini", *backends))
    made = (await gate.ask({"model": "auto", "input": "x"}, path="/v1/responses")).json
    path = f"/v1/responses/{made['id']}"
    got = await gate.get(path)
    assert (got.status, got.json) == (200, made)
    assert (await gate.ask(b"", path=f"{path}/cancel")).json["status"] == "cancelled"
    got = await gate.get(f"{path}?stream=true&starting_after=3&x=%0d%0a")
    assert got.raw == b"event: a\ndata: {}\n\n"
    for wrong in ("resp_1", made["id"][:-1] + "g", "..%2f..%2fhealth"):
        got = await gate.get(f"/v1/responses/{wrong}")
        assert got.status == 404
        assert got.json["error"]["code"] in {"response_not_found", "not_found"}
    assert sum(bool(backend.seen) for backend in backends) == 1
    await until(lambda: gate.idle, "all to end")
