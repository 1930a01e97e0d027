"""Who may talk to whom: the chart's network policies, as helm renders them."""

from tests.e2e.helm_tools import of_ci, one, rendered

COLLECTOR = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "tracing"}}}
ELSEWHERE = {"ipBlock": {"cidr": "10.9.0.0/16"}}
EXTERNAL = {
    "x": {"mode": "external", "profile": "phi-3-mini", "backends": [{"url": "http://x:8000"}]}
}


def policy(objects, name):
    return one(objects, "NetworkPolicy", name)["spec"]


def test_servers_and_meters_are_open_to_the_gateway_and_to_monitoring_only():
    spec = policy(rendered({}), "jg-joulegate-models")
    (rule,) = spec["ingress"]
    gateway, monitoring = rule["from"]
    labels = gateway["podSelector"]["matchLabels"]
    assert labels["app.kubernetes.io/component"] == "gateway"
    assert "namespaceSelector" not in gateway
    assert monitoring["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "monitoring"
    }
    assert spec["policyTypes"] == ["Ingress", "Egress"]


def test_servers_that_need_no_hub_reach_dns_only():
    offline = {"modelDefaults": {"hub": {"offline": True}}}
    assert len(policy(rendered(offline), "jg-joulegate-models")["egress"]) == 1
    assert len(policy(of_ci("demo"), "jg-joulegate-models")["egress"]) == 1
    _, hub = policy(rendered({}), "jg-joulegate-models")["egress"]
    assert hub["ports"] == [{"port": 443, "protocol": "TCP"}]


def test_the_gateway_reaches_its_servers_and_what_is_named():
    dns, servers = policy(rendered({}), "jg-joulegate")["egress"]
    asked = {(port["protocol"], port["port"]) for port in dns["ports"]}
    assert asked == {(protocol, port) for protocol in ("UDP", "TCP") for port in (53, 5353)}
    assert {port["port"] for port in servers["ports"]} == {8000, 9464}
    *_, named = policy(of_ci("external"), "jg-joulegate")["egress"]
    assert named == {"to": [{"ipBlock": {"cidr": "10.20.0.0/16"}}]}


def test_named_clients_shut_everybody_else_out_but_the_chart_s_own_test():
    (rule,) = policy(rendered({}), "jg-joulegate")["ingress"]
    assert "from" not in rule
    (rule,) = policy(of_ci("full"), "jg-gate")["ingress"]
    assert len(rule["from"]) == 3
    assert rule["from"][-1]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "test"


def test_external_backends_are_reached_whatever_else_is_named():
    def egress(**network):
        values = {"models": EXTERNAL, "networkPolicy": network}
        return policy(rendered(values), "jg-joulegate")["egress"][2:]

    (everywhere,) = egress()
    assert {peer["ipBlock"]["cidr"] for peer in everywhere["to"]} == {"0.0.0.0/0", "::/0"}
    assert egress(gatewayEgress=[ELSEWHERE]) == [everywhere, {"to": [ELSEWHERE]}]
    traced, named = egress(tracing={"peers": [COLLECTOR]}), {"to": [ELSEWHERE]}
    assert traced[0] == everywhere
    assert [rule["to"] for rule in traced[1:]] == [[COLLECTOR]]
    assert egress(externalBackends=[ELSEWHERE]) == [named]


def test_the_collector_is_reached_by_gateways_and_model_servers():
    for name in ("jg-gate", "jg-gate-models"):
        (rule,) = (each for each in policy(of_ci("full"), name)["egress"] if "4318" in str(each))
        assert rule["to"] == [COLLECTOR]
        assert [port["port"] for port in rule["ports"]] == [4317, 4318]
    network = {"tracing": {"peers": [COLLECTOR], "ports": [4319]}}
    *_, rule = policy(rendered({"networkPolicy": network}), "jg-joulegate")["egress"]
    assert rule["ports"] == [{"port": 4319, "protocol": "TCP"}]


def test_model_servers_reach_what_is_named_for_them_and_the_gateway_does_not():
    objects = rendered({"networkPolicy": {"modelEgress": [ELSEWHERE]}})
    assert {"to": [ELSEWHERE]} in policy(objects, "jg-joulegate-models")["egress"]
    assert {"to": [ELSEWHERE]} not in policy(objects, "jg-joulegate")["egress"]


def test_a_node_s_meter_is_open_to_the_nodes_that_are_named():
    objects = of_ci("external")
    (rule,) = policy(objects, "jg-joulegate-meter")["ingress"]
    assert {"ipBlock": {"cidr": "10.20.0.0/16"}} in rule["from"]
    # A policy sees the pod behind a node's port, not the node.
    meters = one(objects, "DaemonSet")["spec"]["selector"]
    _, _, rule, _ = policy(objects, "jg-joulegate")["egress"]
    assert rule["to"] == [{"podSelector": meters}]
