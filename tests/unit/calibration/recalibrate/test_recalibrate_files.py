"""The files of `joulegate recalibrate`: what it writes, leaves alone, and takes back."""

import json

import pytest
import respx

from gateway import profile
from gateway.profile import OutputCoefficients
from gateway.scheduling.text_features import BUCKETS, SHAPES
from tests.unit.calibration.recalibrate import recalibrating
from tests.unit.calibration.recalibrate.recalibrating import (
    QUERY,
    URL,
    call,
    model,
    recalibrate,
    served,
)

live, server = recalibrating.live, recalibrating.server


def test_a_dry_run_writes_nothing(server, live):
    server.add(served()[0])
    raw = live.read_bytes()
    code, text, _ = recalibrate(live, "--dry-run")
    assert code == 0
    assert "would adopt: phi-3-mini (--dry-run: nothing was written)" in text
    assert live.read_bytes() == raw
    assert list(live.parent.iterdir()) == [live]


def test_the_shipped_profile_and_another_place_to_write(server, tmp_path):
    server.add(served(live=profile.load_profile(None).get_model("phi-3-mini"))[0])
    out = tmp_path / "new.json"
    assert call("--prometheus", URL, "--out", out)[0] in {0, 1}
    assert call("--prometheus", URL, "--out", out, "--max-change", "100")[0] == 0
    assert profile.load_profile(out).models.keys() == profile.load_profile(None).models.keys()
    code, _, said = call("--prometheus", URL)
    assert code == 2
    assert "where to write?" in said


def test_a_rollback_and_back_again(server, live):
    server.add(served()[0])
    first = live.read_bytes()
    recalibrate(live)
    second = live.read_bytes()
    assert live.with_name("profile.json.previous").read_bytes() == first
    code, text, _ = call("--rollback", "--profile", live)
    assert code == 0
    assert f"is version {profile.load_profile(live).version} again" in text
    assert live.read_bytes() == first
    code, text, _ = call("--rollback", "--profile", live, "--json")
    assert live.read_bytes() == second
    assert json.loads(text)["profile_version"] == profile.load_profile(live).version
    assert sorted(path.name for path in live.parent.iterdir()) == [
        "profile.json", "profile.json.previous",
    ]  # fmt: skip


def test_a_rollback_to_nothing(live):
    raw = live.read_bytes()
    assert call("--rollback", "--profile", live)[0] == 2
    live.with_name("profile.json.previous").write_text("{}")
    code, _, said = call("--rollback", "--profile", live)
    assert code == 2
    assert "no version" in said
    assert live.read_bytes() == raw
    assert call("--rollback")[0] == 2


def test_what_is_no_profile_is_not_overwritten(server, live, tmp_path):
    server.add(served()[0])
    other = tmp_path / "other.json"
    other.write_text('{"version": 2}')
    code, _, said = recalibrate(live, "--out", other)
    assert code == 2
    assert "version 2 is not known here" in said
    assert other.read_text() == '{"version": 2}'


@pytest.mark.parametrize("name", ["profile.json", "new.json"])
def test_models_of_words_go_with_the_profile(server, live, name):
    words = profile.WordsRegression(1.0, 0.5, [0.0] * BUCKETS, [(0.0, 0.0, 1.0)] * len(SHAPES))
    profile.save_profile(profile.load_profile(live).models, live, {"phi-3-mini": words})
    server.add(served()[0])
    out = live.with_name(name)
    assert recalibrate(live, "--out", out)[0] == 0
    assert profile.load_profile(out).lengths == {"phi-3-mini": words}


def test_what_was_learnt_before_is_what_is_held_against(server, live, tmp_path):
    """As in a cluster: the profile stays as it was shipped, what is learnt goes beside it."""
    server.add(served()[0])
    raw = live.read_bytes()
    learnt, new = tmp_path / "learnt.json", tmp_path / "new.json"
    assert recalibrate(live, "--learnt", learnt, "--out", new)[0] == 0
    assert live.read_bytes() == raw
    kept = profile.load_profile(new).models["phi-3-mini"]
    assert kept != profile.load_profile(live).models["phi-3-mini"]
    new.rename(learnt)
    code, text, _ = recalibrate(live, "--learnt", learnt, "--dry-run", "--json")
    held = profile.load_profile(live, learnt)
    assert held.models["phi-3-mini"] == kept
    assert code in {0, 1}
    assert held.version in text


def test_a_profile_that_was_replaced_meanwhile_is_left_alone(server, live):
    server.add(served()[0])

    def replaced(request):
        profile.save_profile({"phi-3-mini": model(output=OutputCoefficients(1.0, 2.0))}, live)
        return server(request)

    respx.post(QUERY).mock(side_effect=replaced)
    code, _, said = recalibrate(live)
    assert code == 1
    assert "was replaced meanwhile, so nothing was written" in said
    assert profile.load_profile(live).get_model("phi-3-mini").output == OutputCoefficients(1.0, 2.0)
    assert list(live.parent.iterdir()) == [live]
