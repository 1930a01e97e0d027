"""A profile that changes while it is served: by signal, by its file, by Kubernetes."""

import asyncio
import os
import signal

import aiohttp
import msgspec
import pytest

from gateway import profile as profiles
from tests.integration.harness import CHAT, until
from tests.integration.process import serve


def write(path, accuracy):
    """A profile in which phi-3-mini has this accuracy; its version."""
    models = dict(profiles.load_profile(None).models)
    phi = models["phi-3-mini"]
    models["phi-3-mini"] = msgspec.structs.replace(phi, accuracy=profiles.AccuracyProfile(accuracy))
    profiles.save_profile(models, path)
    return profiles.load_profile(path).version


async def version_is(served, version):
    return await served.metric("joulegate_profile_info", version=version) == 1


async def asked(http, served):
    """Accuracy and profile that a decision is made with."""
    body = CHAT | {"joulegate": {"explain": True}}
    async with http.post(f"{served.url}/v1/chat/completions", json=body) as response:
        assert response.status == 200
        shown = (await response.json())["joulegate"]
    return shown["candidates"][0]["accuracy"], shown["profile_version"]


@pytest.fixture
async def http():
    async with aiohttp.ClientSession() as session:
        yield session


async def test_sighup_a_new_file_a_bad_one_and_a_symlink_swap(world, http, tmp_path):
    simulator = await world.simulator()
    path = tmp_path / "profile.json"
    first = write(path, 0.5)
    backends = {"phi-3-mini": simulator.url}
    async with serve(tmp_path, backends, profile="profile.json") as served:
        assert await asked(http, served) == (0.5, first)

        # a file that is replaced is noticed by itself
        second = write(path, 0.6)
        await until(lambda: version_is(served, second), "the new profile")
        assert await asked(http, served) == (0.6, second)
        assert await served.metric("joulegate_profile_reloads_total", result="adopted") == 1
        assert await served.metric("joulegate_profile_info") == 1

        # a bad one is refused whole, and the last good one stays
        good = path.read_bytes()
        for k, bad in enumerate((b"{", good[:-200], good.replace(b"phi-3-mini", b"other"), b"")):
            path.write_bytes(bad)

            async def refused(count=k + 1):
                said = await served.metric("joulegate_profile_reloads_total", result="refused")
                return said == count

            await until(refused, f"refusal {k}")
            assert await asked(http, served) == (0.6, second)
        assert served.process.said("profile refused, the last good one stays")
        path.unlink()
        assert await asked(http, served) == (0.6, second)

        # and a good one mends it, read on SIGHUP at once or by itself
        third = write(path, 0.7)
        served.process.send(signal.SIGHUP)
        await until(lambda: version_is(served, third), "the profile after SIGHUP")
        assert await asked(http, served) == (0.7, third)
        served.process.send(signal.SIGTERM)
        await served.process.ended()
    assert not served.process.said("Traceback")


async def test_a_learnt_profile_comes_changes_and_goes(world, http, tmp_path):
    simulator = await world.simulator()
    path, learnt = tmp_path / "profile.json", tmp_path / "learnt.json"
    shipped = write(path, 0.5)
    files = {"profile": "profile.json", "learnt_profile": "learnt.json"}
    async with serve(tmp_path, {"phi-3-mini": simulator.url}, **files) as served:
        assert await asked(http, served) == (0.5, shipped)
        for accuracy in (0.6, 0.7):
            write(learnt, accuracy)
            version = profiles.load_profile(path, learnt).version
            await until(lambda at=version: version_is(served, at), "what was learnt")
            assert await asked(http, served) == (accuracy, version)
        learnt.write_bytes(b"{")
        await until(lambda: served.process.said("the last good one stays"), "the refusal")
        assert await asked(http, served) == (0.7, version)
        learnt.unlink()
        await until(lambda: version_is(served, shipped), "the shipped profile")
        assert await asked(http, served) == (0.5, shipped)


async def test_sighup_reads_a_file_whose_change_shows_in_nothing_else(world, http, tmp_path):
    simulator = await world.simulator()
    path = tmp_path / "profile.json"
    write(path, 0.5)
    before = path.stat()
    async with serve(tmp_path, {"phi-3-mini": simulator.url}, profile="profile.json") as served:
        with path.open("r+b") as file:
            text = file.read().replace(b'"default": 0.5', b'"default": 0.6', 1)
            file.seek(0)
            file.write(text)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        version = profiles.load_profile(path).version
        served.process.send(signal.SIGHUP)
        await until(lambda: version_is(served, version), "the profile after SIGHUP")
        assert await asked(http, served) == (0.6, version)


async def test_a_configmaps_symlink_swap_is_noticed(world, http, tmp_path):
    # Kubernetes: profile.json -> ..data/profile.json, ..data -> ..2026_01, swapped by rename.
    simulator = await world.simulator()
    mount = tmp_path / "mount"
    for name, accuracy in (("..2026_01", 0.51), ("..2026_02", 0.52)):
        (mount / name).mkdir(parents=True)
        write(mount / name / "profile.json", accuracy)
    (mount / "..data").symlink_to("..2026_01")
    (mount / "profile.json").symlink_to("..data/profile.json")
    async with serve(
        tmp_path, {"phi-3-mini": simulator.url}, profile="mount/profile.json"
    ) as served:
        assert (await asked(http, served))[0] == 0.51
        (mount / "..data_tmp").symlink_to("..2026_02")
        (mount / "..data_tmp").rename(mount / "..data")
        version = profiles.load_profile(mount / "profile.json").version
        await until(lambda: version_is(served, version), "the swapped profile")
        assert await asked(http, served) == (0.52, version)


async def test_requests_go_on_while_profiles_change(world, http, tmp_path):
    simulator = await world.simulator()
    path = tmp_path / "profile.json"
    write(path, 0.5)
    async with serve(tmp_path, {"phi-3-mini": simulator.url}, profile="profile.json") as served:
        ending = asyncio.Event()
        seen = set()

        async def client():
            while not ending.is_set():
                seen.add(await asked(http, served))

        clients = [asyncio.create_task(client()) for _ in range(4)]
        versions = {}
        for k in range(5):
            accuracy = 0.6 + k / 100
            version = write(path, accuracy)
            versions[version] = accuracy
            served.process.send(signal.SIGHUP)
            await until(lambda pair=(accuracy, version): pair in seen, "its use")
        ending.set()
        await asyncio.gather(*clients)
    # No decision mixes two profiles.
    assert all(versions.get(version, 0.5) == accuracy for accuracy, version in seen)
