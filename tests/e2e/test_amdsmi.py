"""The chart's writer of counters through AMD's own Python package, over a library made here.

No AMD GPU was at hand: what is real is everything of `amdsmi` above libamd_smi.so, in the version
that PyPI has; the library answers as AMD's documentation says.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.cache import once, run

WRITER = Path(__file__).parents[2] / "helm" / "files" / "joulegate_counters.py"
PACKAGE = "amdsmi==7.0.2"
ANSWERS = Path(__file__).with_name("stub_amdsmi.c")
READ = (
    "import sys; sys.path.insert(0, sys.argv[1]); import joulegate_counters, json;"
    "print(json.dumps(joulegate_counters.open_counters().read(power=True)))"
)


def _install(target):
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install")
    run(PACKAGE, *pip, "--no-deps", "--progress-bar", "off", "--target", target, PACKAGE)


@pytest.fixture(scope="module")
def package():
    return once("amdsmi", f"1 {PACKAGE}", _install)


@pytest.fixture(scope="module")
def library(package, tmp_path_factory):
    """The library with every function that the package looks up; most answer: not supported."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("the stub of libamd_smi.so needs a C compiler (cc)")
    answers = ANSWERS.read_text()
    looked_up = re.findall(
        r"_libraries\['libamd_smi.so'\]\.(\w+)", (package / "amdsmi/amdsmi_wrapper.py").read_text()
    )
    others = sorted({name for name in looked_up if f" {name}(" not in answers})
    folder = tmp_path_factory.mktemp("amdsmi")
    source = folder / "stub.c"
    source.write_text(answers + "".join(f"int {name}(void) {{ return 2; }}\n" for name in others))
    command = [compiler, "-Wall", "-Werror", "-shared", "-fPIC"]
    subprocess.run([*command, "-o", folder / "libamd_smi.so", source], check=True)
    return folder


@pytest.fixture
def node(tmp_path):
    """A node of two GPUs, as a container sees it; `give` one for it to have its device."""

    class Node:
        root = tmp_path

        def give(self, number):
            (tmp_path / "dev/dri" / f"renderD{128 + number}").touch()

    (tmp_path / "dev/dri").mkdir(parents=True)
    for number, address in enumerate(("0000:03:00.0", "0000:83:00.0")):
        (tmp_path / f"sys/bus/pci/devices/{address}/drm/renderD{128 + number}").mkdir(parents=True)
    return Node()


def read(package, root, library=None, **stub):
    """Return what the writer reads, or its complaint's last line."""
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(package),
        "JOULEGATE_NVML": "no-such-library.so",
        "JOULEGATE_ROOT": str(root),
        "LD_LIBRARY_PATH": str(library or root),
        **stub,
    }
    command = [sys.executable, "-c", READ, WRITER.parent]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    return done.stderr.splitlines()[-1] if done.returncode else json.loads(done.stdout)


def test_the_gpu_that_was_given_is_read_and_not_its_neighbour(package, library, node):
    node.give(1)
    gpus = read(package, node.root, library)
    # 2,000,001 steps of 15.3 microjoules.
    whole = {"name": "AMD Instinct MI300X", "millijoules": 30_600, "milliwatts": 310_000}
    assert gpus == {"uuid-1": whole}


def test_both_are_read_where_both_were_given(package, library, node):
    node.give(0)
    node.give(1)
    assert read(package, node.root, library).keys() == {"uuid-0", "uuid-1"}


def test_power_of_older_gpus_is_an_average(package, library, node):
    node.give(0)
    gpus = read(package, node.root, library, STUB_CURRENT="65535")
    assert gpus["uuid-0"]["milliwatts"] == 290_000


@pytest.mark.parametrize(
    ("given", "stub", "said"),
    [
        (None, {}, "the container was given none of 2 GPUs"),
        (0, {"STUB_PARTITION": "CPX"}, r"uuid-0 is split up \(CPX\)"),
        (0, {"STUB_ENERGY": "2"}, "AMDSMI_STATUS_NOT_SUPPORTED"),
        (0, {"STUB_INIT": "34"}, "AMDSMI_STATUS_DRIVER_NOT_LOADED"),
    ],
)
def test_what_is_in_the_way_is_said(package, library, node, given, stub, said):
    if given is not None:
        node.give(given)
    assert re.search(said, read(package, node.root, library, **stub))


def test_an_image_without_the_library_says_so(package, node):
    assert "AMD: " in read(package, node.root)
