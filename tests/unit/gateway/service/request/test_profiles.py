"""The profiles of a running gateway: what is adopted, what is refused, what stays."""

import asyncio
import os
import random
import threading

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from backends.registry import Backend, Deployment
from gateway import profile as profiles
from gateway.config import parse_config
from gateway.profile import ProfileError
from gateway.service.request.profiles import ActiveProfiles
from gateway.telemetry.drift import JOULES, LIVE, SHADOW, DriftMetrics
from gateway.telemetry.metrics import GatewayMetrics
from tests.waiting import until

CONFIG = 'models: [{name: phi-3-mini, context: 4096, backends: [{url: "http://a:1"}]}]\n'


def write(path, accuracy):
    """A profile in which phi-3-mini is this accurate; return its version."""
    phi = profiles.load_profile(None).get_model("phi-3-mini")
    new = msgspec.structs.replace(phi, accuracy=profiles.AccuracyProfile(accuracy))
    profiles.save_profile({"phi-3-mini": new}, path)
    return profiles.load_profile(path).version


class World:
    def __init__(self, folder, *keys):
        self.live, self.shadow = folder / "live.json", folder / "shadow.json"
        paths = {"profile": self.live, "shadow": self.shadow}
        config = parse_config(
            CONFIG + "".join(f"{key}: {paths[key]}\n" for key in keys), "g.yaml", {}
        )
        rng = random.Random(0)
        deployments = [
            Deployment("phi-3-mini", "phi-3-mini", "p", [Backend("http://a:1")], rng=rng)
        ]
        self.registry = CollectorRegistry()
        self.metrics = GatewayMetrics(self.registry)
        self.drift = DriftMetrics(CollectorRegistry(), ("phi-3-mini",))
        self.profiles = ActiveProfiles(config, deployments, self.metrics, self.drift)

    def info(self, name):
        """Versions that a metric shows, with its values."""
        (family,) = (one for one in self.registry.collect() if one.name == name)
        return {one.labels["version"]: one.value for one in family.samples}

    @property
    def reloads(self):
        name = "joulegate_profile_reloads_total"
        results = ("adopted", "refused")
        return tuple(self.registry.get_sample_value(name, {"result": one}) for one in results)

    def accuracy(self, snapshot):
        return snapshot.by_name["phi-3-mini", "phi-3-mini"].option.accuracy

    def drifted(self, profile):
        """Tell a test of something else than before, so that it has a score."""
        for observed in (1.0, 1.0, 3.0):
            self.drift.add_comparison("phi-3-mini", profile, JOULES, 1.0, observed)

    def score(self, profile):
        return self.drift._watches["phi-3-mini", profile, JOULES].test.score


@pytest.fixture
def both(tmp_path):
    write(tmp_path / "live.json", 0.5)
    write(tmp_path / "shadow.json", 0.9)
    return World(tmp_path, "profile", "shadow")


def test_without_files_the_shipped_one_is_live_and_nothing_is_in_shadow(tmp_path):
    world = World(tmp_path)
    assert world.profiles.shadow is None
    assert world.info("joulegate_profile_info") == {profiles.load_profile(None).version: 1}
    assert world.info("joulegate_shadow_profile_info") == {}
    world.profiles.reload_profiles()
    assert world.profiles.shadow is None
    assert world.reloads == (1, 0)


@pytest.mark.parametrize("key", ["profile", "shadow"])
@pytest.mark.parametrize("text", [None, "{", '{"version": 1, "models": {}}'])
def test_a_bad_profile_to_begin_with_is_an_error(tmp_path, key, text):
    path = tmp_path / {"profile": "live.json", "shadow": "shadow.json"}[key]
    if text is not None:
        path.write_text(text)
    with pytest.raises(ProfileError, match=path.name):
        World(tmp_path, key)


def test_each_is_shown_by_its_version(both):
    live, shadow = (
        profiles.load_profile(both.live).version,
        profiles.load_profile(both.shadow).version,
    )
    assert both.info("joulegate_profile_info") == {live: 1}
    assert both.info("joulegate_shadow_profile_info") == {shadow: 1}
    assert both.accuracy(both.profiles.live) == 0.5
    assert both.accuracy(both.profiles.shadow) == 0.9


def test_a_new_live_profile_takes_over_and_the_shadow_stays(both):
    before, shadow = both.profiles.live, both.profiles.shadow.profile.version
    version = write(both.live, 0.6)
    both.profiles.reload_profiles()
    assert both.accuracy(both.profiles.live) == 0.6
    # What a request has begun with does not change under it.
    assert both.accuracy(before) == 0.5
    assert both.info("joulegate_profile_info") == {version: 1}
    assert both.info("joulegate_shadow_profile_info") == {shadow: 1}
    assert both.reloads == (1, 0)


async def test_a_new_shadow_takes_over_and_is_no_reload_of_what_decides(both):
    live = both.profiles.live
    version = write(both.shadow, 0.8)
    await both.profiles._reload_changed()
    assert both.accuracy(both.profiles.shadow) == 0.8
    assert both.info("joulegate_shadow_profile_info") == {version: 1}
    assert both.profiles.live is live
    assert both.reloads == (0, 0)


@pytest.mark.parametrize("bad", ["{", "", '{"version": 2}', "other", None])
def test_a_bad_file_is_refused_whole_and_the_last_good_one_stays(both, bad, caplog):
    live, shadow = both.profiles.live, both.profiles.shadow
    for path in (both.live, both.shadow):
        if bad is None:
            path.unlink()
        elif bad == "other":  # sound, but without the model that is served
            path.write_text(path.read_text().replace("phi-3-mini", "other"))
        else:
            path.write_text(bad)
    shown = [both.info(f"joulegate_{one}profile_info") for one in ("", "shadow_")]
    both.profiles.reload_profiles()
    assert both.profiles.live is live
    assert both.profiles.shadow is shadow
    assert [both.info(f"joulegate_{one}profile_info") for one in ("", "shadow_")] == shown
    assert both.reloads == (0, 1)
    assert sum("the last good one stays" in line for line in caplog.messages) == 2
    write(both.live, 0.7)
    both.profiles.reload_profiles()
    assert both.accuracy(both.profiles.live) == 0.7
    assert both.reloads == (1, 1)


async def test_another_profile_begins_its_tests_of_drift_anew_and_only_its_own(both):
    for profile in (LIVE, SHADOW):
        both.drifted(profile)
    both.profiles.reload_profiles()  # the same version
    assert both.score(LIVE) > 0
    write(both.live, 0.6)
    await both.profiles._reload_changed()
    assert both.score(LIVE) == 0
    assert both.score(SHADOW) > 0
    write(both.shadow, 0.8)
    await both.profiles._reload_changed()
    assert both.score(SHADOW) == 0


def test_reading_the_shadow_again_unchanged_keeps_its_test_of_drift(both):
    both.drifted(SHADOW)
    both.profiles.reload_profiles()
    assert both.score(SHADOW) > 0


async def test_changed_files_are_noticed_each_by_itself(both):
    task = asyncio.create_task(both.profiles.watch_files())
    try:
        write(both.shadow, 0.8)
        await until(lambda: both.accuracy(both.profiles.shadow) == 0.8)
        assert both.accuracy(both.profiles.live) == 0.5
        both.shadow.write_text("{")
        write(both.live, 0.6)
        await until(lambda: both.accuracy(both.profiles.live) == 0.6)
        assert both.accuracy(both.profiles.shadow) == 0.8
        assert both.reloads == (1, 0)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("kind", ["pipe", "device", "huge"])
async def test_a_file_that_would_hang_or_never_end_is_refused(both, kind, monkeypatch):
    live = both.profiles.live
    both.live.unlink()
    if kind == "pipe":
        os.mkfifo(both.live)
    elif kind == "device":
        both.live.symlink_to("/dev/zero")
    else:
        write(both.live, 0.6)
        monkeypatch.setattr(profiles, "_MOST_BYTES", 1000)
    await both.profiles._reload_changed()
    assert both.profiles.live is live
    assert both.reloads == (0, 1)


async def test_a_file_system_that_hangs_holds_up_no_turn_of_the_loop(both, monkeypatch):
    asked, hung = threading.Event(), threading.Event()

    def hang(*_):
        asked.set()
        hung.wait(30)
        raise OSError(None, "gone")

    write(both.live, 0.6)
    monkeypatch.setattr(profiles, "read_bounded_file", hang)
    task = asyncio.create_task(both.profiles.watch_files())
    try:
        await until(asked.is_set)
        # The loop still turns while the file is being read.
        await asyncio.wait_for(asyncio.sleep(0), 10)
        assert both.accuracy(both.profiles.live) == 0.5
    finally:
        hung.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_reload_that_was_asked_for_is_done_at_the_next_look(both):
    both.profiles.request_reload()
    await both.profiles._reload_changed()
    assert both.reloads == (1, 0)
    await both.profiles._reload_changed()
    assert both.reloads == (1, 0)
