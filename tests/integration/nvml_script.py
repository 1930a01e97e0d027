"""GPUs that play a script: the stub of libnvidia-ml.so.1 (stub_nvml.c) and what it is told."""

import json
import os
import subprocess
import sys
from pathlib import Path

SECOND = 1_000_000
HERE = Path(__file__).parent
READER = """
import json, os, sys
from backends.meter.sources.nvml import NvmlSource
from backends.meter.sources.source import SourceError

plan = json.loads(sys.argv[1])
def clock():
    return int(os.environ["NVML_STUB_NOW_US"])

sources = [NvmlSource(names, clock_us=clock) for names in plan["devices"]]
devices = {source: () for source in sources}
last, measured, errors, opened, kinds = {}, {}, [], [], []
for now in range(plan["from_us"], plan["to_us"] + 1, plan["step_us"]):
    os.environ["NVML_STUB_NOW_US"] = str(now)
    for source in sources:
        try:
            if not devices[source]:
                devices[source] = source.open()
                opened.append([(d.id, d.name) for d in devices[source]])
                last |= {d.id: source.read(d) for d in devices[source]}
            for device in devices[source]:
                value = source.read(device)
                step = value - last[device.id]
                last[device.id] = value
                measured[device.id] = measured.get(device.id, 0) + max(step, 0)
        except SourceError as error:
            source.close()
            devices[source] = ()
            if str(error) not in errors:
                errors.append(str(error))
        if source.kind not in kinds:
            kinds.append(source.kind)
print(json.dumps({
    "measured": measured, "errors": errors, "opened": opened, "kinds": kinds,
    "checks": source.checks, "warnings": source.warnings,
}))
"""


def build(compiler, folder):
    """Compile the stub into a folder."""
    command = [compiler, "-Wall", "-Werror", "-shared", "-fPIC", "-O1"]
    command += ["-o", folder / "libnvidia-ml.so.1", HERE / "stub_nvml.c"]
    subprocess.run(command, check=True)


class Script:
    """What the GPUs do; every change is seen at the stub's next answer."""

    def __init__(self, library, path):
        self._path = path
        self._lines = []
        self.env = os.environ | {"LD_LIBRARY_PATH": str(library), "NVML_STUB_SCRIPT": str(path)}

    def say(self, *words):
        self._lines.append(" ".join(map(str, words)))
        new = self._path.with_suffix(".new")
        new.write_text("\n".join(self._lines) + "\n")
        new.replace(self._path)

    def gpu(self, uuid, *, mig=0, tick_us=100_000, start_mj=0, wrap_mj=0, permille=1000):
        self.say("gpu", uuid, "NVIDIA_Stub", mig, tick_us, start_mj, wrap_mj, permille)

    def power(self, gpu, *steps):
        """(second, watts) …; returns the joules from the first step to the last."""
        joules = 0
        for place, (second, watts) in enumerate(steps):
            self.say("power", gpu, round(second * SECOND), round(watts * 1000))
            if place:
                joules += (second - steps[place - 1][0]) * steps[place - 1][1]
        return joules

    def fail(self, gpu, second, code, what="any"):
        self.say("fail", gpu, round(second * SECOND), code, what)

    def read(self, from_second, to_second, *devices, step_us=50_000):
        """Read it as a meter does, 20 times a second; SourceErrors are tried again.

        Each list of devices is a source of its own; without any there is one, of all.
        """
        plan = {
            "devices": devices or [[]],
            "from_us": round(from_second * SECOND),
            "to_us": round(to_second * SECOND),
            "step_us": step_us,
        }
        done = subprocess.run(
            [sys.executable, "-c", READER, json.dumps(plan)],
            env=self.env | {"NVML_STUB_NOW_US": str(plan["from_us"])},
            cwd=HERE.parent.parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return json.loads(done.stdout)

    def joules(self, found):
        return {id_: microjoules / 1e6 for id_, microjoules in found["measured"].items()}
