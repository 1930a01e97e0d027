"""What reads bytes from elsewhere: functions of bytes that raise only where there is a bug.

A target feeds the real parser and takes the errors that it promises; anything else is a find. Where
a reader is fed in pieces it also has to say the same wherever the pieces are cut.
"""

import contextlib
import itertools
import random
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import msgspec

from backends.errors import BackendError, InvalidResponse
from backends.exposition import sum_series
from backends.http.exchange import COMPLETE, FAILED, HttpExchange
from backends.meter.client.ack_reader import read_ack
from backends.meter.daemon.service import BadBatchError, TooManyGatewaysError
from backends.meter.protocol import EventBatch
from backends.prometheus_reply import PrometheusReplyError, parse_samples
from backends.sse import (
    UNREADABLE,
    EventSplitter,
    decode_chunk,
    extract_payload,
    find_token_index,
    has_content,
    split_events,
)
from gateway.config import ConfigError, LimitsConfig, parse_config
from gateway.profile import ProfileError, parse_profile
from gateway.scheduling.decide import DEFAULT_POLICY
from gateway.scheduling.decision import MetricWeights, PredictionBounds
from gateway.service.answer_caps import hold_to_caps
from gateway.service.client.errors import BadRequest
from gateway.service.request.body import decode_members, parse_request
from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.readers import read_features
from gateway.service.request.steering import RequestSteering, find_header_error, resolve_steering
from gateway.service.upstream.upstream_body import encode_upstream_body
from tests.shipped_counter import load_shipped_counter
from tests.unit.backends.meter.meters import World

_counter = load_shipped_counter()
_batches = msgspec.json.Decoder(EventBatch)
_MOST_BATCHES: Final = 20
_CAPS: Final = LimitsConfig(max_answers=4, max_output_tokens=4096)
_STEERING: Final = RequestSteering(
    MetricWeights.from_values(0.5, 0.3, 0.2), DEFAULT_POLICY, PredictionBounds()
)


def read_body(data: bytes) -> None:
    """Decode, look into and encode anew a client's body, as every endpoint that generates does."""
    for kind in EndpointKind:
        try:
            ask = parse_request(kind, decode_members(data))
            hold_to_caps(ask, _CAPS)
            read_features(ask, _counter)
        except BadRequest:
            continue
        _, body = encode_upstream_body(ask, "served", None)
        sent = msgspec.json.decode(body or b"{}", type=dict[str, msgspec.Raw])
        assert bytes(sent["model"]) == b'"served"'
        assert "joulegate" not in sent


def read_steering(data: bytes) -> None:
    """Read steering headers, one a line, and behind an empty line the `joulegate` object."""
    head, _, member = data.partition(b"\n\n")
    headers = {}
    for line in head.split(b"\n"):
        name, _, value = line.partition(b":")
        name = b"x-joulegate-" + name.strip().lower()
        if name.isascii() and find_header_error(name.decode()) is None:
            headers[name] = value.strip()
    try:
        raw = msgspec.Raw(member) if member else None
        if raw is not None:
            msgspec.json.decode(member)
        made = resolve_steering(headers, raw, _STEERING)
    except (BadRequest, *UNREADABLE):
        return
    total = made.weights.accuracy + made.weights.energy + made.weights.time
    assert abs(total - 1.0) < 1e-9


def relay_stream(data: bytes) -> None:
    """Cut a stream into events wherever its pieces end, and decode each."""
    whole = _feed_events([data])
    # An empty line more or less between two events says nothing.
    assert _list_events(_feed_events(_cut(data))) == _list_events(whole)
    for event in split_events(whole):
        payload = extract_payload(event)
        find_token_index(payload)
        try:
            has_content(decode_chunk(payload))
        except InvalidResponse:
            continue


def read_answer(data: bytes) -> None:
    """Feed an HTTP answer in pieces; the end of input makes it complete or failed."""
    found = []
    for pieces in ([data], _cut(data)):
        exchange = HttpExchange()
        body = b""
        for piece in pieces:
            exchange.feed(piece)
            body += exchange.take()
        exchange.end_input()
        assert exchange.state in {COMPLETE, FAILED}
        assert (exchange.error is None) == (exchange.state is COMPLETE)
        found.append((exchange.state, exchange.status, body if exchange.error is None else b""))
    if all(state is COMPLETE for state, *_ in found):
        assert found[0] == found[1]


def read_config(data: bytes) -> None:
    """Parse a configuration."""
    said = "fuzz: "
    try:
        parse_config(data.decode("utf-8", "replace"), "fuzz", {})
    except ConfigError as error:
        said = str(error)
    assert said.startswith("fuzz: ")


def read_profile(data: bytes) -> None:
    """Parse a profile, and predict by every model of it."""
    try:
        profile = parse_profile(data, "fuzz")
    except ProfileError:
        return
    for model in profile.models.values():
        assert model.get_prefill_coefficients() is not None
        model.decode_joules()
        model.to_output_model().describe(100.0)


def read_meter(data: bytes) -> None:
    """Read a meter's answer; and a gateway's batches, one a line, by a meter with counters.

    A second passes between two batches. Whatever they say, no joule is lost.
    """
    with contextlib.suppress(BackendError):
        read_ack(data)
    world = World()
    for line in data.split(b"\n")[:_MOST_BATCHES]:
        try:
            batch = _batches.decode(line)
        except UNREADABLE:
            continue
        world.tell(1.0, 1_000_003)
        with contextlib.suppress(BadBatchError, TooManyGatewaysError):
            world.meter.receive_batch(batch, world.now_us, "10.0.0.1")
        for runner in world.meter.runners.values():
            books = runner.ledger
            assert min(books.idle_microjoules, books.other_microjoules) >= 0
            assert books.advanced_microjoules == (
                books.attributed_microjoules
                + books.idle_microjoules
                + books.other_microjoules
                + books.unsettled_microjoules
            )


def read_prometheus(data: bytes) -> None:
    """Read a page of metrics, and an answer of Prometheus's API."""
    found = sum_series(data, "vllm:num_requests_running")
    assert found is None or isinstance(found, float)
    with contextlib.suppress(PrometheusReplyError):
        parse_samples(HTTPStatus.OK, data)


def _feed_events(pieces: list[bytes]) -> bytes:
    splitter = EventSplitter()
    return b"".join(splitter.feed_chunk(piece) for piece in pieces)


def _list_events(block: bytes) -> list[bytes]:
    return [stripped for event in split_events(block) if (stripped := event.strip(b"\n"))]


def _cut(data: bytes) -> list[bytes]:
    """Cut bytes at places that depend on them alone, so that a find comes again."""
    drawn = random.Random(data)
    places = sorted(drawn.randrange(len(data) + 1) for _ in range(drawn.randrange(6)))
    edges = [0, *places, len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "body": read_body,
    "steering": read_steering,
    "stream": relay_stream,
    "answer": read_answer,
    "config": read_config,
    "profile": read_profile,
    "meter": read_meter,
    "prometheus": read_prometheus,
}
