"""compose.yaml as Docker Compose itself reads it; no engine is needed for that."""

import json

import pytest

from tests.e2e.cluster_tools import call, compose_tool
from tests.e2e.image import ROOT


def compose(*arguments):
    done = call(compose_tool(), "--file", ROOT / "compose.yaml", *arguments)
    assert done.returncode == 0, done.stderr
    # That buildx is not installed is said of an engine that nobody needs here.
    said = [line for line in done.stderr.splitlines() if "buildx" not in line]
    assert not said
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("profile", "services"),
    [
        ((), {"image", "gateway", "phi-3-mini", "mistral-7b", "falcon-7b", "meter"}),
        (("--profile", "load"), {"load", "gateway"}),
        (("--profile", "gpu"), {"gateway-gpu", "meter-gpu", "mistral-7b-gpu", "phi-3-mini-gpu"}),
    ],
)
def test_compose_takes_it_and_hardens_every_service(profile, services):
    whole = compose(*profile, "config", "--format", "json")["services"]
    assert services <= whole.keys()
    for name, service in whole.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        # Grafana writes plugins and sessions beside its volume.
        assert service.get("read_only") or name == "grafana", name
    ports = [port for service in whole.values() for port in service.get("ports", [])]
    assert ports
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_one_service_builds_and_all_others_use_its_image():
    """Two targets of one tag would build at once, and either may win."""
    plan = compose("--profile", "gpu", "build", "--print")
    assert list(plan["target"]) == ["image"]
    (tag,) = plan["target"]["image"]["tags"]
    whole = compose("--profile", "gpu", "config", "--format", "json")["services"]
    ours = {name for name, service in whole.items() if service["image"] == tag}
    assert ours == {
        *("image", "gateway", "phi-3-mini", "mistral-7b", "falcon-7b", "meter"),
        *("gateway-gpu", "meter-gpu"),
    }
    assert {name for name, service in whole.items() if "build" in service} == {"image"}
