"""The small endpoints, ids and CORS."""

import base64
import hashlib
import re

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from gateway.service.client import headers as names
from tests.integration.harness import CHAT, STREAM, model

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_health_and_ready(gate):
    assert ((await gate.get("/health")).status, (await gate.get("/health")).json) == (
        200,
        {"status": "ok"},
    )
    ready = await gate.get("/ready")
    assert ready.status == 200
    assert ready.json == {"status": "ready", "usable_backends": 4, "inflight": 0}


@pytest.mark.asyncio(loop_scope="function")
async def test_not_ready_without_a_usable_backend_or_while_draining(world):
    backend = await world.simulator()
    backend.faults.set_fault("unhealthy")
    gate = await world.gate(model("phi-3-mini", backend))
    got = await gate.get("/ready")
    assert (got.status, got.json["usable_backends"]) == (503, 0)
    assert await gate.metric("joulegate_backend_up") == 0
    assert (await gate.get("/health")).status == 200
    well = await world.gate(model("phi-3-mini", await world.simulator()))
    assert (await well.get("/ready")).status == 200
    well.gateway.draining = True
    got = await well.get("/ready")
    assert (got.status, got.json["status"]) == (503, "draining")


async def test_the_root_is_a_page_for_a_browser_and_json_for_anybody_else(gate):
    page = await gate.get("/", {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none';")
    # The page's own style is what the policy lets through.
    style = re.search(r"<style>(.*?)</style>", page.raw.decode(), re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert "mistral-7b" in page.raw.decode()
    told = (await gate.get("/")).json
    assert told["models"] == ["phi-3-mini", "mistral-7b", "falcon-7b"]
    assert told["paths"]["/v1/chat/completions"] == ["POST"]
    assert told["paths"]["/metrics"] == ["GET"]


async def test_a_path_that_is_not_there_is_answered_with_those_that_are(gate):
    got = await gate.get("/chat/completions")
    assert (got.status, got.json["error"]["code"]) == (404, "not_found")
    said = got.json["error"]["message"]
    assert said.startswith(
        "there is no /chat/completions here (did you mean /v1/chat/completions?)"
    )
    for path in ("GET /metrics", "POST /v1/chat/completions", "GET /v1/models", "POST /v1/route"):
        assert path in said


async def test_openmetrics_is_given_to_whoever_asks_for_it_and_nothing_is_nan(gate):
    await gate.ask(STREAM)
    asked = {"accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2"}
    page = await gate.get("/metrics", asked)
    assert page.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in text_string_to_metric_families(page.raw.decode())}
    assert families["joulegate_requests"].type == "counter"
    plain = await gate.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain")
    for got in (page, plain):
        values = [line.rpartition(" ")[2] for line in got.raw.decode().splitlines()]
        assert not [value for value in values if value.lower() == "nan"]


async def test_an_unknown_header_of_ours_is_refused_and_an_echoed_one_is_not(gate):
    got = await gate.ask(CHAT, {"x-joulegate-weight-enrgy": "1"})
    assert got.status == 400
    assert got.json["error"]["param"] == "x-joulegate-weight-enrgy"
    assert "did you mean x-joulegate-weight-energy?" in got.json["error"]["message"]
    for path in ("/v1/embeddings", "/v1/route", "/v1/responses", "/tokenize"):
        got = await gate.ask(CHAT, {"x-joulegate-polcy": "hybrid"}, path=path)
        assert got.status == 400
        assert "did you mean x-joulegate-policy?" in got.json["error"]["message"]
    # Proxies send an answer's headers back.
    answered = await gate.ask(CHAT)
    echoed = {name: value for name, value in answered.headers.items() if name in names.RESPONSE}
    assert {names.MODEL, names.BACKEND, names.ATTEMPTS, names.SCORE} <= echoed.keys()
    again = await gate.ask(CHAT, echoed)
    assert again.status == 200, again.raw


async def test_the_metrics_have_the_contracts_names(gate):
    await gate.ask()
    await gate.ask(STREAM)
    page = await gate.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page.raw.decode(), re.MULTILINE))
    for name, kind in (
        ("requests_total", "counter"),
        ("request_duration_seconds", "histogram"),
        ("time_to_first_token_seconds", "histogram"),
        ("time_per_output_token_seconds", "histogram"),
        ("request_energy_joules", "histogram"),
        ("energy_joules_total", "counter"),
        ("predicted_duration_seconds", "histogram"),
        ("request_predicted_energy_joules", "histogram"),
        ("predicted_energy_joules_total", "counter"),
        ("tokens_total", "counter"),
        ("decisions_total", "counter"),
        ("decision_duration_seconds", "histogram"),
        ("exclusions_total", "counter"),
        ("backend_up", "gauge"),
        ("backend_inflight", "gauge"),
        ("backend_ejections_total", "counter"),
        ("retries_total", "counter"),
        ("client_disconnects_total", "counter"),
        ("streams_broken_total", "counter"),
        ("profile_info", "gauge"),
        ("profile_reloads_total", "counter"),
    ):
        assert types.get(f"joulegate_{name}") == kind, name
    version = gate.gateway.planner.profiles.live.profile.version
    assert await gate.metric("joulegate_profile_info", version=version) == 3
    assert await gate.metric("joulegate_backend_up") == 4


async def test_openapi_describes_every_endpoint(gate):
    got = await gate.get("/schema/openapi.json")
    assert got.headers["content-type"].startswith("application/")
    document = got.json
    assert document["openapi"].startswith("3.")
    assert document["info"]["title"]
    methods = {(path, method) for path, item in document["paths"].items() for method in item}
    for path in ("chat/completions", "completions", "embeddings", "route"):
        assert (f"/v1/{path}", "post") in methods
    for path in ("/v1/models", "/health", "/ready", "/metrics"):
        assert (path, "get") in methods
    assert any(re.fullmatch(r"/v1/models/\{\w+\}", path) for path, _ in methods)
    assert any(re.fullmatch(r"/v1/requests/\{\w+\}", path) for path, _ in methods)
    chat = document["paths"]["/v1/chat/completions"]["post"]
    described = {parameter["name"].lower() for parameter in chat["parameters"]}
    assert set(names.REQUEST) <= described


@pytest.mark.parametrize("mine", ["abc", "A-1_b.2:3", "x" * 128])
async def test_a_sane_request_id_is_kept(gate, mine):
    for body in (CHAT, STREAM, b"not json"):
        got = await gate.ask(body, {"x-request-id": mine})
        assert got.headers.getall("x-request-id") == [mine]
        assert (await gate.record(got))["id"] == mine


@pytest.mark.parametrize("mine", ["", "x" * 129, "a b", "a/b", "../x", "é", "a;b", '"', "a,b"])
async def test_another_one_is_replaced(gate, mine):
    got = await gate.ask(headers={"x-request-id": mine})
    assert re.fullmatch(r"req_[0-9a-f]{24}", got.headers["x-request-id"])
    assert (await gate.record(got))["code"] == 200


async def test_cors_lets_browsers_in_and_shows_them_the_headers(gate):
    origin = {"origin": "https://app.example"}
    asks = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-joulegate-weight-energy",
    }
    path = "/v1/chat/completions"
    before = await gate.ask(None, origin | asks, path, "OPTIONS")
    assert before.status in (200, 204)
    assert before.headers["access-control-allow-origin"] in ("*", origin["origin"])
    assert "POST" in before.headers["access-control-allow-methods"]
    allowed = before.headers["access-control-allow-headers"].lower()
    assert allowed == "*" or "x-joulegate-weight-energy" in allowed
    for body in (CHAT, STREAM, b"not json", CHAT | {"model": "nope"}):
        got = await gate.ask(body, origin)
        assert got.headers["access-control-allow-origin"] in ("*", origin["origin"])
        shown = re.split(r",\s*", got.headers["access-control-expose-headers"].lower())
        assert {*names.RESPONSE, "retry-after", "x-should-retry"} <= set(shown)
        assert "authorization" not in shown
    missing = await gate.get("/v1/nowhere", origin)
    assert missing.headers["access-control-allow-origin"] in ("*", origin["origin"])
