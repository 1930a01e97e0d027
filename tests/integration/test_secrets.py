"""Secrets that stand in every input come out nowhere: no answer, log, metric or trace has them."""

import json
import logging

import pytest

from gateway.config import BackendConfig, LogConfig, ModelConfig
from gateway.keys_file import read_keys
from gateway.structured import ConfigError
from tests.integration.harness import CHAT, STREAM
from tests.integration.keys import known

PLANTED = {
    "authorization": "Bearer jg-PLANTED-bearer",
    "x-api-key": "jg-PLANTED-key",
    "cookie": "session=PLANTED-cookie",
    "proxy-authorization": "Basic PLANTED-proxy",
}

POSTS = ("/v1/chat/completions", "/v1/route", "/v1/feedback", "/v1/messages", "/tokenize")
GETS = ("/v1/models", "/v1/usage", "/v1/requests/none", "/", "/none", "/metrics")


async def test_keys_come_out_nowhere(world, ring, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    simulator = await world.simulator()
    log = tmp_path / "decisions.jsonl"
    served = ModelConfig(
        "phi-3-mini", 4096, (BackendConfig(simulator.url, api_key="PLANTED-backend"),)
    )
    gate = await world.gate(served, keys=ring.config(), log=LogConfig(decisions=str(log)))
    good = await known(gate, ring.add("search", requests_per_minute=50))
    secret = good["authorization"].removeprefix("Bearer ")
    seen = []
    for headers in (PLANTED, PLANTED | good, {"x-api-key": secret}, good):
        for body in (CHAT, STREAM, CHAT | {"model": "nobody"}, b"{", {"model": 1}):
            seen += [await gate.ask(body, headers, path) for path in POSTS]
        seen += [await gate.get(path, headers) for path in GETS]
    gate.gateway.accounting.flush()
    digest = ring.entries[0].sha256
    told = [got.raw.decode() + json.dumps(dict(got.headers)) for got in seen]
    told += [caplog.text, (await gate.get("/metrics")).raw.decode()]
    told += [repr(gate.gateway.keys.callers), log.read_text() if log.exists() else ""]
    assert len({got.status for got in seen}) >= 4
    for text in told:
        assert "PLANTED" not in text
        assert secret not in text
        assert digest not in text


@pytest.mark.parametrize(
    "text",
    [
        "keys: [{id: PLANTED",
        "keys:\n  - jg-PLANTED\n  - {",
        "keys: [{id: a, sha256: jg-PLANTED, tenant: t}]",
        "\tjg-PLANTED",
    ],
)
def test_a_key_in_a_broken_file_is_not_repeated(tmp_path, text):
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_keys(path)
    assert "PLANTED" not in str(refused.value)
