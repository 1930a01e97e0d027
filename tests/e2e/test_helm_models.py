"""The chart's model servers and meters, read from what helm renders."""

import re

import jinja2
import pytest
import yaml

from backends.vllm import launcher, recipes
from gateway import config, meter_config, structured
from tests.e2e.helm_tools import container, containers, of_ci, one, pods, rendered, server


def configured(objects, name="jg-joulegate-config"):
    text = one(objects, "ConfigMap", name)["data"]["gateway.yaml"]
    environ = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "key")
    return {
        model.deployment_label: model
        for model in config.parse_config(
            text, "gateway.yaml", environ
        ).models  # as the gateway reads it
    }


@pytest.mark.parametrize("key", list(recipes.RECIPES))
def test_the_three_models_are_served_as_joulegate_backend_serves_them(key):
    recipe = recipes.get_recipe(key)
    argv = launcher.build_command(recipe, host="0.0.0.0", port=8000, python="python3")
    if recipe.chat_template:
        argv[argv.index("--chat-template") + 1] = "/etc/vllm/chat.jinja"
    objects = rendered({"meter": {"mode": "none"}, "modelDefaults": {"drain": False}})
    mine = container(server(objects, f"jg-joulegate-{key}"), "server")
    assert [*mine["command"], *mine["args"]] == argv
    served = configured(objects)[key]
    assert served.context == recipe.context_tokens
    assert set(served.capabilities) == set(recipe.capabilities)


def test_falcon_s_template_arrives_whole():
    data = one(rendered({}), "ConfigMap", "jg-joulegate-falcon-7b-template")["data"]
    path = recipes.get_recipe("falcon-7b").chat_template_path
    assert data == {"chat.jinja": path.read_text()}


def test_a_template_of_one_s_own_is_not_helm_s_to_fill_in():
    data = one(of_ci("full"), "ConfigMap", "jg-gate-zephyr-7b-template")["data"]
    said = jinja2.Template(data["chat.jinja"]).render(messages=[{"role": "user", "content": "Hi"}])
    assert said.strip() == "user: Hi"


def test_a_changed_template_restarts_its_server_and_no_other():
    def annotations(values, key):
        tree = one(rendered(values), "StatefulSet", f"jg-joulegate-{key}")
        return tree["spec"]["template"]["metadata"]["annotations"]

    changed = {"models": {"falcon-7b": {"chatTemplate": "{{ messages }}"}}}
    assert annotations({}, "falcon-7b") != annotations(changed, "falcon-7b")
    assert annotations({}, "mistral-7b") == annotations(changed, "mistral-7b")


def test_each_server_is_a_backend_by_its_own_name():
    objects = of_ci("replicas")
    urls = [backend.url for backend in configured(objects)["phi-3-mini"].backends]
    assert len(urls) == 3
    service = one(objects, "Service", "jg-joulegate-phi-3-mini")
    tree = one(objects, "StatefulSet", "jg-joulegate-phi-3-mini")
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert tree["spec"]["serviceName"] == service["metadata"]["name"]
    assert tree["spec"]["replicas"] == 3
    assert urls == [
        f"http://jg-joulegate-phi-3-mini-{place}.jg-joulegate-phi-3-mini.llm.svc.cluster.local:8000"
        for place in range(3)
    ]


def test_gpus_are_asked_for_and_shared_out():
    mine = container(server(of_ci("replicas"), "jg-joulegate-mistral-7b"), "server")
    assert mine["resources"]["limits"]["nvidia.com/gpu"] == 2
    args = mine["args"]
    assert args[args.index("--tensor-parallel-size") + 1] == "2"
    assert args[-2:] == ["--gpu-memory-utilization", "0.92"]
    single = container(server(of_ci("replicas"), "jg-joulegate-phi-3-mini"), "server")
    assert "--tensor-parallel-size" not in single["args"]


def test_a_model_overrides_its_defaults_with_false_and_zero_too():
    values = {
        "modelDefaults": {"hub": {"offline": True}, "gpus": 4},
        "models": {"phi-3-mini": {"hub": {"offline": False}, "gpus": 0}},
    }
    mine = container(server(rendered(values), "jg-joulegate-phi-3-mini"), "server")
    assert "HF_HUB_OFFLINE" not in {variable["name"] for variable in mine["env"]}
    assert "nvidia.com/gpu" not in mine["resources"]["limits"]


@pytest.mark.parametrize(
    ("cache", "claims", "source"),
    [
        ({"type": "volume", "size": "7Gi"}, 1, None),
        ({"type": "ephemeral"}, 0, "emptyDir"),
        ({"type": "claim", "claim": "weights"}, 0, "persistentVolumeClaim"),
    ],
)
def test_where_weights_are_kept(cache, claims, source):
    objects = rendered({"modelDefaults": {"cache": cache}})
    spec = one(objects, "StatefulSet", "jg-joulegate-phi-3-mini")["spec"]
    assert len(spec.get("volumeClaimTemplates", [])) == claims
    volumes = {volume["name"]: volume for volume in spec["template"]["spec"]["volumes"]}
    assert (source in volumes["cache"]) if source else ("cache" not in volumes)
    mine = container(spec["template"]["spec"], "server")
    env = {variable["name"]: variable.get("value") for variable in mine["env"]}
    (mount,) = (each for each in mine["volumeMounts"] if each["name"] == "cache")
    assert env["HF_HOME"] == mount["mountPath"]


def test_hub_token_and_server_key_come_from_secrets():
    pod = server(of_ci("full"), "jg-gate-falcon-7b")
    env = {variable["name"]: variable for variable in container(pod, "server")["env"]}
    assert env["HF_TOKEN_PATH"]["value"] == "/etc/hub/token"
    wanted = {"secretKeyRef": {"name": "vllm", "key": "api-key"}}
    assert env["VLLM_API_KEY"]["valueFrom"] == wanted
    gateway = pods(of_ci("full"))["Deployment/jg-gate"]["containers"][0]
    env = {variable["name"]: variable.get("valueFrom") for variable in gateway["env"]}
    assert env["BACKEND_KEY_FALCON_7B"] == wanted


def test_external_backends_deploy_nothing_of_their_own():
    objects = of_ci("external")
    assert not [tree for tree in objects if tree["kind"] == "StatefulSet"]
    assert len([tree for tree in objects if tree["kind"] == "Service"]) == 1
    models = configured(objects)
    assert set(models) == {"phi-3-mini", "mistral-7b", "mistral-7b-l4"}
    assert models["mistral-7b-l4"].name == "mistral-7b"
    assert models["phi-3-mini"].served_name == "microsoft/Phi-3-mini-4k-instruct"
    assert models["phi-3-mini"].backends[1].meter == "http://gpu-2.example.org:9464"
    assert models["phi-3-mini"].backends[1].api_key == "key"
    gateway = pods(objects)["Deployment/jg-joulegate"]["containers"][0]
    given = {variable["name"] for variable in gateway["env"]}
    text = one(objects, "ConfigMap", "jg-joulegate-config")["data"]["gateway.yaml"]
    assert set(re.findall(r"\$\{(\w+)\}", text)) == given


def test_a_backend_s_key_is_no_other_model_s():
    """Of `llama` the fourth backend, and the only key of `llama-4`."""
    given = [
        {"url": f"http://h{place}:8000", "apiKeySecret": {"name": f"s{place}", "key": "k"}}
        for place in range(5)
    ]
    values = {
        "llama": {"mode": "external", "backends": given},
        "llama-4": {"model": "x/y", "apiKeySecret": {"name": "other"}},
        "3-key": {"model": "x/y", "apiKeySecret": {"name": "third"}},
    }
    values = {key: {**model, "profile": "phi-3-mini"} for key, model in values.items()}
    objects = rendered({"models": values})
    env = pods(objects)["Deployment/jg-joulegate"]["containers"][0]["env"]
    assert len(env) == len({variable["name"] for variable in env}) == 8  # the meters' too
    secrets = {variable["name"]: variable["valueFrom"]["secretKeyRef"]["name"] for variable in env}
    text = one(objects, "ConfigMap", "jg-joulegate-config")["data"]["gateway.yaml"]
    models = config.parse_config(text, "gateway.yaml", secrets).models
    keys = {
        model.deployment_label: [backend.api_key for backend in model.backends] for model in models
    }
    assert keys["llama"] == [f"s{place}" for place in range(5)]
    assert (keys["llama-4"], keys["3-key"]) == (["other"], ["third"])


def test_a_long_seed_stays_a_whole_number():
    values = {"modelDefaults": {"mode": "simulator", "simulator": {"seed": 1234567890}}}
    args = container(server(rendered(values), "jg-joulegate-phi-3-mini"), "server")["args"]
    assert "--seed=1234567890" in args


def test_a_server_and_its_meter_end_up_in_the_gateway_s_config_together():
    for values, metered in (({}, True), ({"meter": {"mode": "none"}}, False)):
        objects = rendered(values)
        for key, model in configured(objects).items():
            pod = server(objects, f"jg-joulegate-{key}")
            names = [each["name"] for each in pod["containers"]]
            assert ("meter" in names) is metered
            assert (model.backends[0].meter is not None) is metered
            ports = one(objects, "Service", f"jg-joulegate-{key}")["spec"]["ports"]
            assert ("meter" in {port["name"] for port in ports}) is metered


def test_the_meter_is_not_part_of_a_server_s_readiness():
    assert "readinessProbe" not in container(server(of_ci("full"), "jg-gate-falcon-7b"), "meter")


def test_the_demo_needs_no_gpu_and_no_other_image():
    objects = of_ci("demo")
    for pod in pods(objects).values():
        assert "tolerations" not in pod
        assert "runtimeClassName" not in pod
        for each in containers(pod):
            assert each["image"] == "ghcr.io/joulegate/joulegate:0.1.0"
            assert "nvidia.com/gpu" not in each["resources"]["limits"]
            assert "NVIDIA_VISIBLE_DEVICES" not in {env["name"] for env in each.get("env", [])}
    assert len(configured(objects)["phi-3-mini"].backends) == 2


def test_a_node_s_meter_takes_its_config():
    objects = of_ci("external")
    data = one(objects, "ConfigMap", "jg-joulegate-meter")["data"]
    (text,) = data.values()
    tree = yaml.safe_load(text)
    assert tree["hz"] == 20
    (meter,) = pods(objects)["DaemonSet/jg-joulegate-meter"]["containers"]
    fields = {
        variable["name"]: variable["valueFrom"]["fieldRef"]["fieldPath"]
        for variable in meter["env"]
        if "valueFrom" in variable
    }
    assert fields == {"NODE_IP": "status.hostIP", "NODE_NAME": "spec.nodeName"}
    environ = dict.fromkeys(fields, "10.0.0.1")
    parsed = structured.parse_struct(text, "meter.yaml", meter_config.MeterConfig, environ)
    assert parsed.ledgers[0].backends[0].root_url == "http://10.0.0.1:8000"
    assert meter["ports"][0]["hostPort"] == 9464
    assert "--secret-file=/etc/meter/secret" in meter["args"]
