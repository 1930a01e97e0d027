"""The chart's writer of counters against the stub of NVML, and a meter that was given no GPU."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.harness import total, until
from tests.integration.process import joulegate
from tests.integration.test_nvml_stub import Meter

WRITER = Path(__file__).parents[2] / "helm" / "files" / "joulegate_counters.py"
NO_PERMISSION = 4


@pytest.fixture
def started(tmp_path):
    """Start the writer in an environment; the file that it writes."""
    running = []
    path = tmp_path / "counters"

    def start(env, *wanted):
        # -I: as in any image, without this project.
        command = [sys.executable, "-I", WRITER, path, *wanted]
        running.append(subprocess.Popen(command, env=env, cwd="/"))
        return path

    yield start
    for process in running:
        process.kill()
        process.wait()


async def told(path, key):
    """Return what the file says under a key, once it does."""

    def look():
        return path.exists() and json.loads(path.read_text()).get(key)

    return await until(look, f"{key} in {path}")


async def test_a_meter_without_gpus_measures_those_of_the_server_beside_it(script, started):
    script.gpu("GPU-a", tick_us=20_000)
    script.gpu("GPU-b", tick_us=20_000)
    path = started(script.env)
    assert (await told(path, "gpus")).keys() == {"GPU-a", "GPU-b"}
    arguments = ("meter", "--source", "file", "--device", path, "--port", 0)
    async with joulegate(*arguments) as process:
        meter = Meter((await process.says(r"metering on (http://\S+)"))[1])
        await until(meter.counting)
        began = time.monotonic() + 0.2
        wanted = {
            f"GPU-{name}": script.power(gpu, (began, watts), (began + 0.5, watts), (began + 0.6, 0))
            for gpu, (name, watts) in enumerate((("a", 300), ("b", 500)))
        }

        async def measured():
            found = await meter.joules()
            return all(found[uuid] > 0.99 * joules for uuid, joules in wanted.items())

        await until(measured, f"{wanted}", seconds=30)
        assert await meter.joules() == pytest.approx(wanted, rel=0.01)
        _, page = await meter.get("/metrics")
        assert total(page, "joulegate_meter_source_info", device="GPU-a", source="file") == 1


async def test_a_meter_stays_and_says_what_the_server_beside_it_lacks(script, started):
    script.gpu("GPU-a", mig=1)
    path = started(script.env)
    arguments = ("meter", "--source", "file", "--device", path, "--port", 0)
    async with joulegate(*arguments) as process:
        meter = Meter((await process.says(r"metering on (http://\S+)"))[1])
        assert "split up (MIG)" in await until(meter.failing)


@pytest.mark.parametrize(
    ("code", "said"), [(NO_PERMISSION, "nvmlDeviceGetTotalEnergyConsumption: error 4"), (0, "")]
)
async def test_what_the_driver_says_is_passed_on(script, started, code, said):
    script.gpu("GPU-a")
    script.fail(0, 0, code, "energy")
    path = started(script.env)
    if said:
        assert said in await told(path, "error")
    else:
        assert await told(path, "gpus")


@pytest.mark.parametrize(("wanted", "key"), [("1", "error"), ("2", "gpus")])
async def test_gpus_that_are_not_all_the_server_s_are_nobody_s(script, started, wanted, key):
    script.gpu("GPU-a")
    script.gpu("GPU-b")
    said = await told(started(script.env, wanted), key)
    if key == "error":
        assert "was given 1 and sees 2 GPUs" in said


async def test_a_server_without_a_driver_names_each_library(started):
    path = started({"PATH": os.environ["PATH"], "JOULEGATE_NVML": "no-such-library.so"})
    error = await told(path, "error")
    assert "NVIDIA: no-such-library.so" in error
    assert "AMD: No module named 'amdsmi'" in error
