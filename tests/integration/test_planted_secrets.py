"""A gateway as a process, a secret in everything that it reads: none comes out of it anywhere.

The backends repeat what they were sent in every answer, wrong ones above all: that is how keys get
into errors.
"""

import contextlib
import json
import signal

import aiohttp
import yaml
from aiohttp import web

from gateway.keys_file import KeysFile, make_key, write_keys
from tests.e2e.processes import free_port
from tests.integration.collector import TRACE, Collector
from tests.integration.harness import until
from tests.integration.process import joulegate
from tests.integration.scripted import Recorder, chat, delta, event

PLANTED = {
    name: f"pl4nted-{name}-9f3c"
    for name in (
        "backend", "meter", "store", "grid", "otlp", "odd-otlp", "admin", "response", "cookie",
        "bearer", "x-api-key", "proxy", "query", "header", "prompt", "user", "tool", "steering",
    )
}  # fmt: skip
MINE = ("prompt", "user", "tool", "steering")
"""What a client may be told again of its own request, by the backend or in its own error."""
STATUSES = (400, 401, 403, 404, 413, 422, 429, 500, 502, 503)
KINDS = (
    *map(str, STATUSES), "html", "cut", "error object", "error event", "error within",
    "late error", "broken json", "fine",
)  # fmt: skip
HEADERS = {
    "cookie": PLANTED["cookie"],
    "proxy-authorization": f"Basic {PLANTED['proxy']}",
    "x-secret": PLANTED["header"],
    "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
    "tracestate": "a=b",
}


def repeat(seen):
    """What a careless server says: all that it was sent."""
    return f"{dict(seen.headers)} {seen.body.decode()}"


async def answer(request, seen):
    kind = request.headers.get("x-request-id", "fine").partition("-")[0].replace("_", " ")
    said = repeat(seen)
    error = {"error": {"message": said, "type": "BadRequestError", "param": said, "code": said}}
    if kind.isdigit():
        return web.json_response(error, status=int(kind), headers={"x-said": "no"})
    if kind == "html":
        return web.Response(text=f"<p>{said}</p>", content_type="text/html")
    if kind == "error object":
        return web.json_response(error)
    if not seen.json.get("stream"):
        if kind == "fine":
            return web.json_response(chat())
        cut = json.dumps(chat(content=said))[:-9]
        return web.Response(text=cut, content_type="application/json")
    streamed = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await streamed.prepare(request)
    if kind == "error event":
        await streamed.write(event(error))
    else:
        await streamed.write(delta(content="Hi"))
        if kind in {"error within", "late error"}:
            await streamed.write(event(error))
        elif kind == "broken json":
            await streamed.write(b'data: {"' + json.dumps(said).encode() + b"\n\n")
        elif kind == "fine":
            await streamed.write(delta(finish_reason="stop") + b"data: [DONE]\n\n")
    return streamed


def bodies():
    """Requests of every API, each with secrets of its client's in it."""
    said = [{"role": "user", "content": PLANTED["prompt"]}]
    tool = {"type": "function", "function": {"name": "f", "description": PLANTED["tool"]}}
    more = {"model": "auto", "user": PLANTED["user"], "metadata": {"k": PLANTED["user"]}}
    for stream in (False, True):
        yield "/v1/chat/completions", {"messages": said, "tools": [tool], "stream": stream} | more
        yield "/v1/completions", {"prompt": PLANTED["prompt"], "stream": stream} | more
        yield "/v1/responses", {"input": PLANTED["prompt"], "stream": stream} | more
        yield "/v1/messages", {"messages": said, "max_tokens": 9, "stream": stream} | more
    yield "/tokenize", {"model": "phi-3-mini", "prompt": PLANTED["prompt"]}


def bad_requests():
    """Requests that are wrong, with secrets in what is wrong."""
    said = [{"role": "user", "content": PLANTED["prompt"]}]
    path = "/v1/chat/completions"
    yield path, f'{{"model": "auto", "messages": "{PLANTED["prompt"]}'.encode(), {}
    yield path, {"model": "auto", "messages": PLANTED["prompt"]}, {}
    yield path, {"model": "auto", "messages": said, "max_tokens": PLANTED["prompt"]}, {}
    yield path, {"model": "auto", "messages": said, "tools": PLANTED["tool"]}, {}
    yield path, {"model": "auto", "messages": said}, {"x-joulegate-policy": PLANTED["steering"]}
    yield (
        path,
        {"model": "auto", "messages": said},
        {"x-joulegate-weight-time": PLANTED["steering"]},
    )
    yield path, b"\xff" + PLANTED["prompt"].encode(), {"content-encoding": PLANTED["steering"]}
    yield f"/none?key={PLANTED['query']}", {}, {}
    yield f"{path}?key={PLANTED['query']}", {"model": "auto", "messages": said}, {}
    yield "/v1/feedback", {"request_id": "x", "score": PLANTED["prompt"]}, {}


class Planted:
    """A gateway with secrets in everything, and all that came out of it."""

    def __init__(self, folder, process, url, admin, key, collector):
        self.folder, self.process, self.url, self.admin = folder, process, url, admin
        self.key, self.collector = key, collector
        self.answers = []

    async def ask(self, http, path, body, headers):
        data = body if isinstance(body, bytes) else json.dumps(body)
        async with http.post(self.url + path, data=data, headers=headers) as got:
            told = b""
            with contextlib.suppress(aiohttp.ClientError):
                async for piece in got.content.iter_any():
                    told += piece
            self.answers.append(
                f"{got.status} {dict(got.headers)} {told.decode('utf-8', 'replace')}"
            )
        return got.status

    async def look(self, http, url, **headers):
        async with http.get(url, headers=headers) as got:
            self.answers.append(f"{got.status} {dict(got.headers)} {await got.text()}")
            return got.status


@contextlib.asynccontextmanager
async def planted(folder, monkeypatch):
    for name in ("backend", "grid", "admin"):
        (folder / name).write_text(PLANTED[name] + "\n")
    odd = f"authorization=Bearer {PLANTED['otlp']},{PLANTED['odd-otlp']}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", odd)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    key, entry = make_key("search", requests_per_minute=10_000)
    write_keys(folder / "keys.yaml", KeysFile((entry,)))
    dead = f"http://127.0.0.1:{free_port()}"
    async with Recorder(answer) as backend:
        with Collector() as collector:
            servers = [backend.url, f"{backend.url}/second"]
            backends = [{"url": url, "api_key_file": "backend", "meter": dead} for url in servers]
            names = ["phi-3-mini", "mistral-7b"]
            config = {
                "models": [
                    {"name": name, "context": 4096, "backends": backends[place : place + 1]}
                    for place, name in enumerate(names)
                ],
                "health": {
                    "eject_after_failures": 2,
                    "eject_seconds": 0.01,
                    "eject_max_seconds": 0.01,
                },
                "meter_secret": PLANTED["meter"],
                "response_id_secret": PLANTED["response"],
                "carbon": {"prometheus": {"url": dead, "token_file": "grid"}},
                "tracing": {"endpoint": collector.url},
                "admin": {"port": 0, "token_file": "admin"},
                "log": {"decisions": "decisions.jsonl", "access": "access.jsonl"},
                "keys": {
                    "file": "keys.yaml",
                    "store": {"url": f"redis://u:{PLANTED['store']}@127.0.0.1:{free_port()}/0"},
                },
            }
            path = folder / "gateway.yaml"
            path.write_text(yaml.safe_dump(config))
            arguments = ("serve", "--config", path, "--port", 0, "--log-level", "debug")
            async with joulegate(*arguments) as process:
                url = await process.says(r"running on (http://127\.0\.0\.1:\d+)")
                admin = await process.says(r"operators on (http://\S+)")
                yield Planted(folder, process, url[1], admin[1], key, collector)


async def test_what_is_planted_comes_out_nowhere(tmp_path, monkeypatch):
    async with planted(tmp_path, monkeypatch) as gate, aiohttp.ClientSession() as http:
        good = HEADERS | {"authorization": f"Bearer {gate.key}"}

        async def ready():
            with contextlib.suppress(OSError):
                return await gate.look(http, f"{gate.url}/ready") == 200

        await until(ready, "/ready", seconds=60)
        statuses = set()
        for kind in KINDS:
            for path, body in bodies():
                headers = good | {"x-request-id": kind.replace(" ", "_")}
                statuses.add(await gate.ask(http, path, body, headers))
        for path, body, more in bad_requests():
            for who in (
                good,
                HEADERS | {"authorization": f"Bearer {PLANTED['bearer']}"},
                HEADERS | {"x-api-key": PLANTED["x-api-key"]},
            ):
                statuses.add(
                    await gate.ask(http, path, body, who | more | {"x-request-id": "fine"})
                )
        for path in ("/v1/models", "/v1/usage", "/v1/requests/400", "/v1/requests/fine", "/ready"):
            await gate.look(http, gate.url + path, **good)
        for path in ("/metrics", "/admin/backends", "/v1/requests/400", "/load"):
            for token in (PLANTED["admin"], PLANTED["bearer"]):
                await gate.look(http, gate.admin + path, authorization=f"Bearer {token}")
        (tmp_path / "gateway.yaml").write_text(f"models: !{PLANTED['backend']}\n")
        gate.process.send(signal.SIGHUP)
        await gate.process.says("configuration refused")
        await until(lambda: len(gate.collector.spans) > 20, "spans")
        gate.process.send(signal.SIGTERM)
        await gate.process.ended()
        out = {
            "stderr": "\n".join(gate.process.lines),
            "decisions": (tmp_path / "decisions.jsonl").read_text(),
            "access": (tmp_path / "access.jsonl").read_text(),
            "spans": b"".join(gate.collector.bodies).decode("latin-1"),
            "answers": "\n".join(gate.answers),
        }
    assert statuses >= {200, 400, 401, 404, 413, 415, 422, 429, 502, 503}
    assert len(out["access"].splitlines()) >= len(KINDS) * len(list(bodies()))
    assert out["decisions"].count("refused by the backend") > 10
    assert "Header format invalid" in out["stderr"]
    told = [
        (where, name, text[max(0, text.index(secret) - 200) :][:300])
        for where, text in out.items()
        for name, secret in (PLANTED | {"key": gate.key}).items()
        if secret in text and not (where == "answers" and name in MINE)
    ]
    assert told == []
