"""Addresses that are not asked, whatever name leads there."""

import pytest

from backends.client import BackendClient
from backends.errors import BackendUnreachable
from backends.http.address_rules import AddressRules
from backends.http.url import parse_request_url
from gateway.config import BackendConfig, ConfigError, parse_config
from tests.integration.harness import model


async def test_a_backend_outside_the_networks_gets_nothing(world):
    recorder = await world.recorder()
    gate = await world.gate(model("phi-3-mini", recorder), upstream_networks=("10.0.0.0/8",))
    got = await gate.ask()
    assert got.status == 503
    assert recorder.seen == []
    gate = await world.gate(model("phi-3-mini", recorder), upstream_networks=("127.0.0.0/8",))
    assert (await gate.ask()).status == 200


async def test_a_link_local_address_is_never_asked(world):
    metadata = BackendConfig("http://169.254.169.254")
    gate = await world.gate(model("phi-3-mini", metadata))
    assert (await gate.ask()).status == 503


async def test_a_name_that_leads_outside_is_refused_too(world):
    recorder = await world.recorder()
    port = recorder.url.rpartition(":")[2]
    async with BackendClient(connect_seconds=5, rules=AddressRules(["10.0.0.0/8"])) as client:
        url = parse_request_url(f"http://localhost:{port}/v1/models")
        with pytest.raises(BackendUnreachable, match="none that may be asked"):
            await client.request("GET", url, None, {})
    assert recorder.seen == []


def test_a_network_that_is_none_is_said():
    text = "models: [{name: a, context: 9, backends: [{url: 'http://b:1'}]}]\n"
    with pytest.raises(ConfigError, match=r"upstream_networks: .*10\.0\.0\.1/8"):
        parse_config(text + "upstream_networks: [10.0.0.1/8]\n", "g", {})
