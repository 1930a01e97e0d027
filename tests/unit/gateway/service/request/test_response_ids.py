"""Ids of responses: found again by whoever has the key, and by nobody else."""

import random

import pytest

from backends.registry import Backend, Deployment
from gateway.service.client.errors import UnknownResponse
from gateway.service.request.response_ids import ResponseIds


def deployments(*ports, model="phi-3-mini"):
    backends = tuple(Backend(f"http://127.0.0.1:{port}") for port in ports)
    return (Deployment(model, model, model, backends, rng=random.Random(1)),)


def test_any_gateway_with_the_key_finds_the_backend():
    mine, theirs = deployments(1, 2, 3), deployments(3, 2, 1)
    made = ResponseIds(mine, "key").make_id(mine[0].backends[1], 7)
    found = ResponseIds(theirs, "key").find_place(made)
    assert found.backend is theirs[0].backends[1]
    assert made.endswith("-7")


def test_no_two_ids_are_the_same_and_none_tells_the_backend():
    mine = deployments(1)
    ids = ResponseIds(mine, "key")
    made = {ids.make_id(mine[0].backends[0], 1) for _ in range(100)}
    assert len(made) == 100
    assert not any("127.0.0.1" in one or "phi" in one for one in made)


@pytest.mark.parametrize("at", [5, 20, 21, 36, 37, 52, -1])
def test_a_changed_digit_is_found_out(at):
    mine = deployments(1)
    ids = ResponseIds(mine, "key")
    made = ids.make_id(mine[0].backends[0], 255)
    at %= len(made)
    changed = made[:at] + ("0" if made[at] != "0" else "1") + made[at + 1 :]
    ids.find_place(made)
    with pytest.raises(UnknownResponse, match="was made here"):
        ids.find_place(changed)


def test_another_key_and_a_backend_that_has_left_are_told_apart():
    mine = deployments(1, 2)
    made = ResponseIds(mine, "key").make_id(mine[0].backends[0], 1)
    with pytest.raises(UnknownResponse, match="was made here"):
        ResponseIds(mine, "another").find_place(made)
    with pytest.raises(UnknownResponse, match="has left"):
        ResponseIds(deployments(2), "key").find_place(made)


@pytest.mark.parametrize("odd", ["", "resp_", "resp_" + "0" * 48, "x" * 10_000, "resp_\n-1"])
def test_what_is_no_id_is_refused(odd):
    with pytest.raises(UnknownResponse):
        ResponseIds((), None).find_place(odd)
