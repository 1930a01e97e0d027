"""A profile in shadow predicts beside the live one, is watched as that is, and decides nothing.

In the shadow's eyes phi-3-mini is a hundred times as hungry and slow, so that it would choose
another model for every request.
"""

import asyncio

import pytest

from gateway import profile as profiles
from tests.integration.harness import CHAT, metered, model, until
from tests.prediction_series import name_prediction_series
from tests.scaled_costs import scale_model

QUANTITIES = ("seconds", "joules", "output_tokens")


def write(path, factor, intercept=44.0):
    """The shipped profile with phi-3-mini's costs so many times as high; return its version."""
    models = dict(profiles.load_profile(None).models)
    models["phi-3-mini"] = scale_model(
        models["phi-3-mini"], factor, output=profiles.OutputCoefficients(0.0, intercept)
    )
    profiles.save_profile(models, path)
    return profiles.load_profile(path).version


@pytest.fixture
async def two(world, tmp_path):
    """A gateway with a profile of each kind, and where the two are."""
    live, shadow = tmp_path / "live.json", tmp_path / "shadow.json"
    write(live, 1.0)
    write(shadow, 100.0, 60.0)
    phi = await world.simulator("phi-3-mini", truth_fields={"output_sd": 0.3})
    mistral = await world.simulator("mistral-7b")
    meter = await world.meter(phi)
    gate = await world.gate(
        model("phi-3-mini", metered(phi, meter)),
        model("mistral-7b", mistral),
        profile=str(live),
        shadow=str(shadow),
    )
    return gate, live, shadow


async def settled(gate, got):
    return await gate.settled(got.headers["x-request-id"])


async def figure(gate, name, quantity, profile):
    metric, labels = name_prediction_series(name, "phi-3-mini", quantity, profile)
    return await gate.metric(metric, **labels)


async def test_both_predict_and_one_decides(two):
    gate, live, shadow = two
    answers = [await gate.ask(CHAT | {"model": "auto:energy"}) for _ in range(6)]
    records = [await settled(gate, got) for got in answers]
    now = profiles.load_profile(live).version
    beside = profiles.load_profile(shadow).version
    for got, record in zip(answers, records, strict=True):
        assert got.json["model"] == "phi-3-mini"
        decision = record["decision"]
        assert decision["profile_version"] == now
        predicted = decision["candidates"][0]["predicted_joules"]
        assert float(got.headers["x-joulegate-predicted-joules"]) == pytest.approx(
            predicted, rel=1e-5
        )
        mine, other = record["compared"]["live"], record["compared"]["shadow"]
        assert (mine["profile_version"], other["profile_version"]) == (now, beside)
        assert other["seconds"] == pytest.approx(100.0 * mine["seconds"])
        assert other["joules"] == pytest.approx(100.0 * mine["joules"])
        assert (mine["output_tokens"], other["output_tokens"]) == (44, 60)
    # The dry run knows of one profile only.
    assert (await gate.ask(path="/v1/route")).json["profile_version"] == now
    assert await gate.metric("joulegate_decisions_total", model="mistral-7b") == 0

    assert await gate.metric("joulegate_shadow_profile_info", version=beside) == 2  # models
    assert await gate.metric("joulegate_shadow_profile_info") == 2
    assert await gate.metric("joulegate_profile_info", version=now) == 2
    observed = {
        "joules": sum(record["observed"]["joules"] for record in records),
        "output_tokens": sum(record["usage"]["completion_tokens"] for record in records),
    }
    for quantity in QUANTITIES:
        for profile in ("live", "shadow"):
            expected = [record["compared"][profile][quantity] for record in records]
            assert await figure(gate, "requests_total", quantity, profile) == len(records)
            assert await figure(gate, "predicted_total", quantity, profile) == pytest.approx(
                sum(expected)
            )
            shown = await figure(gate, "observed_total", quantity, profile)
            if quantity in observed:
                assert shown == pytest.approx(observed[quantity])
            else:  # less than the client's, by the decision
                assert 0 < shown < sum(record["observed"]["seconds"] for record in records)
    # By the records' own joules: on a busy machine a request draws idle watts for longer.
    for profile in ("live", "shadow"):
        off = [
            abs(record["compared"][profile]["joules"] - record["observed"]["joules"])
            for record in records
        ]
        shown = await figure(gate, "absolute_error_total", "joules", profile)
        assert shown == pytest.approx(sum(off))


async def test_a_shadow_is_exchanged_and_a_bad_one_refused_while_the_live_one_decides(two):
    gate, live, shadow = two
    now, first = profiles.load_profile(live).version, profiles.load_profile(shadow).version

    async def in_shadow(version):
        return await gate.metric("joulegate_shadow_profile_info", version=version) == 2

    assert await in_shadow(first)
    second = write(shadow, 3.0)
    await until(lambda: in_shadow(second), "the new shadow")
    assert not await in_shadow(first)
    record = await settled(gate, await gate.ask(CHAT | {"model": "phi-3-mini"}))
    told = record["compared"]
    assert (told["live"]["profile_version"], told["shadow"]["profile_version"]) == (now, second)
    assert told["shadow"]["joules"] == pytest.approx(3.0 * told["live"]["joules"])

    # A bad one, and one without a model that is served: the last good one goes on.
    for bad in (b"{", shadow.read_bytes().replace(b"mistral-7b", b"another")):
        shadow.write_bytes(bad)
        gate.runtime._profiles.reload_profiles()
        assert await in_shadow(second)
        record = await settled(gate, await gate.ask(CHAT | {"model": "phi-3-mini"}))
        assert record["compared"]["shadow"]["profile_version"] == second
    third = write(shadow, 4.0)
    await until(lambda: in_shadow(third), "the mended shadow")
    assert await gate.metric("joulegate_profile_info", version=now) == 2
    assert await gate.metric("joulegate_profile_reloads_total", result="refused") == 0


async def test_a_shadow_that_becomes_live_decides(two):
    gate, live, shadow = two
    beside = profiles.load_profile(shadow).version
    fresh = live.with_suffix(".new")
    fresh.write_bytes(shadow.read_bytes())
    fresh.replace(live)

    async def decides():
        return (await gate.ask(path="/v1/route")).json["profile_version"] == beside

    await until(decides, "the profile")
    answers = await asyncio.gather(*(gate.ask(CHAT | {"model": "auto:energy"}) for _ in range(4)))
    assert {got.json["model"] for got in answers} == {"mistral-7b"}
