"""The bench of decisions measures what it says: so many candidates, all of them ranked."""

import pytest

from gateway.app import create_app
from gateway.service.request.body import decode_members, parse_request
from gateway.service.request.endpoint import EndpointKind
from tests.bench.decisions import make_fleet

BODY = b'{"model":"auto","messages":[{"role":"user","content":"Hello"}]}'


@pytest.mark.parametrize("candidates", [3, 30])
def test_a_fleet_has_as_many_candidates_as_it_says(candidates):
    plan = create_app(make_fleet(candidates)).state.runtime.gateway.planner.plan_request
    decision = plan(parse_request(EndpointKind.CHAT, decode_members(BODY)), {}).decision
    assert len(decision.candidates) == candidates
    assert len({one.backend for one in decision.candidates}) == candidates
