"""compose.yaml and what it mounts: it refers to what there is, and its parts agree."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

from backends.vllm import launcher
from backends.vllm.recipes import RECIPES
from gateway import config, meter_config
from gateway.commands import check
from gateway.commands.check_options import CheckOptions

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
IMAGE = SERVICES["image"]
OURS = {name for name, service in SERVICES.items() if service["image"] == IMAGE["image"]} - {
    "image"
}
SERVING = OURS - {"load"}
VLLM = {name for name, service in SERVICES.items() if "vllm" in service["image"]}
CONFIGS = {name: ROOT / entry["file"] for name, entry in COMPOSE["configs"].items()}
GATEWAYS = {"": "gateway", "-gpu": "gateway-gpu"}

each_set = pytest.mark.parametrize("suffix", GATEWAYS)


def option(service, name):
    """Return what follows an option of the service's command."""
    command = service["command"]
    return command[command.index(name) + 1]


def listens_on(name):
    service = SERVICES[name]
    return int(option(service, "--port")) if "command" in service else 8080


def mounted(name, target):
    """Return the file of this repository that the service finds at `target`."""
    (source,) = (c["source"] for c in SERVICES[name]["configs"] if c["target"] == target)
    return CONFIGS[source]


def addresses(path):
    """Return every (service, port) that a config's URLs name."""
    urls = re.findall(r"http://([\w-]+):(\d+)", path.read_text(encoding="utf-8"))
    return {(host, int(port)) for host, port in urls}


def mounts(service):
    volumes = service.get("volumes", ())
    return [mount.split(":")[0] for mount in volumes if mount.startswith("./")]


def test_every_file_that_is_mounted_exists():
    bound = {ROOT / mount for service in SERVICES.values() for mount in mounts(service)}
    assert len(bound) >= 4
    assert [str(path) for path in [*bound, *CONFIGS.values()] if not path.exists()] == []


def test_every_name_that_is_used_is_declared():
    for name, service in SERVICES.items():
        assert set(service.get("depends_on", ())) <= set(SERVICES), name
        assert {c["source"] for c in service.get("configs", ())} <= set(COMPOSE["configs"]), name
        volumes = {mount.split(":")[0] for mount in service.get("volumes", ())}
        assert {v for v in volumes if not v.startswith(".")} <= set(COMPOSE["volumes"]), name


def test_what_a_service_waits_for_starts_with_it():
    # Compose refuses a dependency whose profile is not enabled.
    for name, service in SERVICES.items():
        for other in service.get("depends_on", ()):
            assert set(SERVICES[other].get("profiles", ())) <= set(service.get("profiles", ())), (
                name
            )


def test_nothing_is_published_beyond_this_machine():
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(published) >= 4
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_images_are_pinned_and_can_be_replaced():
    images = {service["image"] for service in SERVICES.values()}
    assert all(re.fullmatch(r"\$\{[A-Z]+_IMAGE:-[\w./-]+:v?\d+\.\d+\.\d+\}", i) for i in images)


def test_what_is_ours_can_do_no_harm():
    assert VLLM
    for name in (*OURS, *VLLM, "image"):
        service = SERVICES[name]
        assert service["read_only"] is True, name
        assert not {"privileged", "ipc", "pid", "network_mode"} & service.keys(), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "user" not in service, "the image says who it runs as"


def test_one_service_builds_and_the_others_wait_for_its_image():
    assert len(OURS) >= 7
    assert {name for name, service in SERVICES.items() if "build" in service} == {"image"}
    assert "profiles" not in IMAGE
    for name in OURS:
        assert SERVICES[name]["pull_policy"] == "never", name
        waits, known = [name], set()
        while waits:
            known.add(waits[-1])
            waits += set(SERVICES[waits.pop()].get("depends_on", ())) - known
        assert "image" in known, name


@each_set
def test_the_gateways_config_passes_and_names_services_and_their_ports(suffix, capsys):
    path = mounted(GATEWAYS[suffix], "/etc/joulegate/gateway.yaml")
    assert check.run(CheckOptions(config=path, as_json=True)) == 0, capsys.readouterr()
    parsed = config.load_config(path)
    assert {model.name for model in parsed.models} == set(RECIPES)
    for host, port in addresses(path):
        assert listens_on(host) == port
        assert host in SERVICES[GATEWAYS[suffix]]["depends_on"]
    for model in parsed.models:
        assert model.context == RECIPES[model.name].context_tokens
        assert model.capabilities == RECIPES[model.name].capabilities


@each_set
def test_the_meter_knows_every_backend_of_the_gateway_beside_it(suffix):
    gateway = config.load_config(mounted(GATEWAYS[suffix], "/etc/joulegate/gateway.yaml"))
    path = mounted(f"meter{suffix}", "/etc/joulegate/meter.yaml")
    metered = [
        b.root_url
        for ledger in meter_config.load_meter_config(path).ledgers
        for b in ledger.backends
    ]
    asked = [backend for model in gateway.models for backend in model.backends]
    assert sorted(metered) == sorted(backend.root_url for backend in asked)
    assert {backend.meter for backend in asked} == {f"http://meter{suffix}:9464"}
    assert all(listens_on(host) == port for host, port in addresses(path))


@pytest.mark.parametrize("model", RECIPES)
def test_vllm_is_started_as_its_recipe_says(model):
    service = SERVICES[f"{model}-gpu"]
    recipe = RECIPES[model]
    template = recipe.chat_template_path
    expected = launcher.build_command(recipe, host="0.0.0.0", port=8000, python="python3")
    words = [*service["entrypoint"], *service["command"]]
    if template:
        target = option(service, "--chat-template")
        assert mounted(f"{model}-gpu", target) == template
        expected[expected.index(str(template))] = target
    assert words[: len(expected)] == expected
    assert words[len(expected)] == "--gpu-memory-utilization"


def test_a_gateway_has_time_to_drain():
    for suffix, name in GATEWAYS.items():
        path = mounted(name, "/etc/joulegate/gateway.yaml")
        grace = float(SERVICES[name]["stop_grace_period"].removesuffix("s"))
        assert grace > config.load_config(path).timeouts.drain_seconds + 5, suffix


def test_health_checks_ask_the_port_that_is_served():
    for name in SERVING - set(GATEWAYS.values()):
        url = SERVICES[name]["environment"]["JOULEGATE_HEALTH_URL"]
        assert url == f"http://127.0.0.1:{listens_on(name)}/health"


def test_prometheus_scrapes_every_service_on_its_port():
    jobs = yaml.safe_load((ROOT / "docs/compose/prometheus.yml").read_text(encoding="utf-8"))
    found = {
        (name, lookup["port"])
        for job in jobs["scrape_configs"]
        for lookup in job["dns_sd_configs"]
        for name in lookup["names"]
    }
    serving = set(SERVICES) - {"prometheus", "grafana", "image", "load"}
    assert found == {(name, listens_on(name)) for name in serving}


def test_grafana_finds_prometheus_and_the_dashboards():
    folder = ROOT / "docs/compose/grafana"
    (source,) = yaml.safe_load((folder / "datasources/prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((folder / "dashboards/joulegate.yaml").read_text())["providers"]
    mounted_at = [mount.split(":")[1] for mount in SERVICES["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounted_at


def test_the_load_asks_the_gateway_for_every_preset_and_model():
    spec = importlib.util.spec_from_file_location("load", mounted("load", "/etc/joulegate/load.py"))
    load = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(load)
    (url,) = SERVICES["load"]["command"]
    host, port = re.fullmatch(r"http://([\w-]+):(\d+)", url).groups()
    assert listens_on(host) == int(port)
    parsed = config.load_config(CONFIGS["gateway"])
    presets = {f"auto:{name}" for name in parsed.preset_weights()}
    assert set(load.NAMES) == {"auto", *presets, *(model.name for model in parsed.models)}
