"""Which key of the profile a deployment refits: said, exported by the gateways, or guessed."""

import httpx
import pytest
import respx

from calibration.recalibrate.profile_keys import INFO_METRIC
from calibration.recalibrate.prometheus import Series
from gateway import profile
from tests.unit.calibration.recalibrate.recalibrating import (
    QUERY,
    Server,
    model,
    recalibrate,
    served,
    told,
)

GUESSED = f"! no {INFO_METRIC} in the window for phi (as phi): guessed by name"


@pytest.fixture
def live(tmp_path):
    path = tmp_path / "profile.json"
    profile.save_profile({"phi": model(), "phi-a100": model()}, path)
    return path


@pytest.fixture
def server():
    with respx.mock:
        held = Server()
        held.add(served(500, name="phi")[0])
        respx.post(QUERY).mock(side_effect=held)
        yield held


def info(key, instance="a", deployment="phi", until=2000.0, value="1.0"):
    labels = {"__name__": INFO_METRIC, "model": "phi", "deployment": deployment, "profile": key}
    return Series(
        {**labels, "instance": instance, "job": "gw"}, [(until - 15.0, value), (until, value)]
    )


def keys(live, *arguments):
    """Return exit code, {key: deployments} and warnings."""
    code, report = told(live, *arguments)
    return code, {m["model"]: m["deployments"] for m in report["models"]}, report["warnings"]


def test_the_key_that_the_gateways_export_is_refitted(server, live):
    server.info = [info("phi-a100"), info("phi-a100", "b")]
    before = profile.load_profile(live)
    assert keys(live) == (0, {"phi-a100": ["phi"]}, [])
    after = profile.load_profile(live)
    assert after.get_model("phi") == before.get_model("phi")
    assert after.get_model("phi-a100") != before.get_model("phi-a100")


def test_the_key_that_was_given_is_stronger(server, live):
    server.info = [info("phi-a100"), info("phi", "b")]
    assert keys(live, "--model", "phi=phi") == (0, {"phi": ["phi"]}, [])


def test_a_name_alone_takes_the_exported_key(server, live):
    server.info = [info("phi-a100")]
    assert keys(live, "--model", "phi") == (0, {"phi-a100": ["phi"]}, [])


def test_nothing_is_asked_where_every_key_was_given(server, live):
    def sums_only(request):
        assert INFO_METRIC not in request.content.decode()
        return server(request)

    respx.post(QUERY).mock(side_effect=sums_only)
    assert keys(live, "--model", "phi=phi-a100") == (0, {"phi-a100": ["phi"]}, [])


def test_two_instances_that_disagree_are_refused(server, live):
    server.info = [info("phi-a100", "a"), info("phi", "b")]
    raw = live.read_bytes()
    code, _, said = recalibrate(live)
    assert code == 2
    assert "the gateways disagree on the profile key of deployment 'phi'" in said
    assert "'phi-a100' (instance=a, job=gw)" in said
    assert "'phi' (instance=b, job=gw)" in said
    assert "--model phi=KEY" in said
    assert live.read_bytes() == raw


def test_two_keys_of_one_instance_at_one_moment_disagree_too(server, live):
    server.info = [info("phi-a100"), info("phi")]
    assert recalibrate(live)[0] == 2


@pytest.mark.parametrize("turn", [1, -1])
def test_the_last_word_of_an_instance_counts(server, live, turn):
    server.info = [info("phi", until=1500.0), info("phi-a100", until=2000.0)][::turn]
    assert keys(live) == (0, {"phi-a100": ["phi"]}, [])


def test_a_key_that_is_0_is_not_in_force(server, live):
    server.info = [info("phi", value="0.0"), info("phi-a100", until=1500.0)]
    assert keys(live) == (0, {"phi-a100": ["phi"]}, [])


def test_disagreement_on_a_deployment_that_is_not_wanted(server, live):
    server.add(served(500, name="mistral")[0])
    server.info = [info("phi-a100")] + [
        Series({**info(key, key).metric, "model": "mistral", "deployment": "mistral"}, [(9.0, "1")])
        for key in ("phi", "phi-a100")
    ]
    assert recalibrate(live)[0] == 2
    assert keys(live, "--model", "phi") == (0, {"phi-a100": ["phi"]}, [])


def test_an_exported_key_that_is_not_in_the_profile(server, live):
    server.info = [info("phi-l4")]
    code, _, said = recalibrate(live)
    assert code == 2
    assert "not in the profile (it has: phi, phi-a100), where it would be 'phi-l4'" in said


def test_without_the_metric_a_guess_is_said(server, live):
    code, text, _ = recalibrate(live)
    assert code == 0
    assert GUESSED in text
    assert "phi: passed" in text
    server.info = [info("phi-a100", deployment="other")]  # of an older gateway's neighbour
    assert GUESSED in recalibrate(live)[1]


def test_a_server_that_does_not_take_the_question(server, live):
    server.info = None
    code, text, _ = recalibrate(live)
    assert code == 0
    assert "HTTP 400: only sums are known" in text
    assert GUESSED in text


def test_a_guess_between_two_keys_is_refused(server, live):
    server.held.clear()
    server.add(served(500, name="phi", deployment="phi-a100")[0])
    raw = live.read_bytes()
    code, _, said = recalibrate(live)
    assert code == 2
    assert "deployment 'phi-a100' may be 'phi-a100' or 'phi' in the profile" in said
    assert "--model phi-a100=KEY" in said
    assert live.read_bytes() == raw


def test_an_answer_that_failed_is_not_taken_for_none(server, live):
    def flaky(request):
        return httpx.Response(503) if INFO_METRIC in request.content.decode() else server(request)

    respx.post(QUERY).mock(side_effect=flaky)
    raw = live.read_bytes()
    code, _, said = recalibrate(live)
    assert code == 1
    assert "HTTP 503" in said
    assert live.read_bytes() == raw


def test_what_prometheus_warns_of_is_handed_on(server, live):
    server.info, server.warnings = [info("phi-a100")], ["a store is down"]
    assert keys(live)[2] == ["Prometheus warns: a store is down"]
