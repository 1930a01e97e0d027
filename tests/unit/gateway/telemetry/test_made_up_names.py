"""Names that clients make up do not become labels."""

from collections import Counter

from prometheus_client import CollectorRegistry

from backends.client import BackendClient
from gateway.config import parse_config
from gateway.service.accounting.accounting import RequestAccounting
from gateway.service.client.cancellation import RequestCancellation
from gateway.service.client.response import ResponseWriter
from gateway.service.pipeline import RequestPipeline
from gateway.service.request.body import decode_members, parse_request
from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.planner import RequestPlanner
from gateway.service.request.profiles import ActiveProfiles
from gateway.service.request.response_ids import ResponseIds
from gateway.service.request.routing_table import ModelNames
from gateway.service.upstream.dispatcher import UpstreamDispatcher
from gateway.telemetry.drift import DriftMetrics
from gateway.telemetry.metrics import GatewayMetrics
from gateway.telemetry.recent import RecentRequests
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.request_stages import ReceivedRequest, RequestedName
from tests.unit.gateway.telemetry.test_metrics import backends, samples

CONFIG = parse_config(
    'models: [{name: phi-3-mini, context: 4096, backends: [{url: "http://a:1"}]}]', "g", {}
)


async def test_names_that_clients_make_up_land_in_other(counter):
    metrics = GatewayMetrics(CollectorRegistry())
    deployments = (backends("http://a:1"),)
    for _ in range(5):  # nobody is there, so nothing is sent
        deployments[0].backends[0].record_failure()
    client = BackendClient(connect_seconds=1.0)
    gateway = RequestPipeline(
        planner=RequestPlanner(
            ModelNames(CONFIG),
            ActiveProfiles(
                CONFIG, deployments, metrics, DriftMetrics(metrics.registry, ("phi-3-mini",))
            ),
            counter,
            ResponseIds(deployments, None),
        ),
        deployments=deployments,
        dispatcher=UpstreamDispatcher(
            client, metrics, CONFIG.timeouts, CONFIG.retry, CONFIG.limits
        ),
        metrics=metrics,
        accounting=RequestAccounting(metrics, RecentRequests(0), deployments),
        stall_seconds=1.0,
        stream_seconds=60.0,
    )

    async def send(_):
        pass

    async def ask(model):
        async def load():
            body = f'{{"model":"{model}","messages":[{{"role":"user","content":"hi"}}]}}'
            return parse_request(EndpointKind.CHAT, decode_members(body.encode()))

        found = RequestRecord(ReceivedRequest("r", 1.0, "chat"), RequestedName("other", "none"))
        await gateway.handle_request(
            found, load, {}, ResponseWriter(send, "r"), RequestCancellation()
        )

    made_up = [f"made-up-{number}" for number in range(50)]
    for model in [*made_up, "auto", "joulegate/auto", "auto:energy", "auto:nope", "phi-3-mini"]:
        await ask(model)
    gateway.accounting.flush()
    counted = Counter()
    for s in samples(metrics):
        if s.name == "joulegate_requests_total":
            counted[s.labels["requested"], s.labels["code"]] += int(s.value)
    assert counted == {
        ("other", "404"): 51,
        ("auto", "503"): 2,
        ("auto:energy", "503"): 1,
        ("phi-3-mini", "503"): 1,
    }
