"""RAPL packages from a tree of files like /sys/class/powercap."""

import os
import tempfile
from pathlib import Path

import pytest

from backends.meter.sources.rapl import RaplSource
from backends.meter.sources.source import SourceError


def zone(root, name, title, energy="1000", most="262143328850"):
    folder = root / name
    folder.mkdir()
    (folder / "name").write_text(title + "\n")
    (folder / "energy_uj").write_text(energy + "\n")
    (folder / "max_energy_range_uj").write_text(most + "\n")
    return folder


@pytest.fixture
def root(tmp_path):
    (tmp_path / "intel-rapl").mkdir()  # the control type itself
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", "1")
    zone(tmp_path, "intel-rapl:0", "package-0", "5000")
    zone(tmp_path, "intel-rapl:0:0", "core")
    zone(tmp_path, "intel-rapl:0:1", "dram")
    zone(tmp_path, "intel-rapl:1", "package-1", "7000")
    zone(tmp_path, "intel-rapl:2", "psys")
    zone(tmp_path, "dtpm:0", "package-9")
    return tmp_path


def test_packages_count_once_and_their_parts_do_not(root):
    source = RaplSource(root=root)
    devices = source.open()
    assert [(d.id, d.name, d.wraps_at_microjoules) for d in devices] == [
        ("package-0", "intel-rapl:0", 262143328850),
        ("package-1", "intel-rapl:1", 262143328850),
    ]
    assert [source.read(d) for d in devices] == [5000, 7000]
    (root / "intel-rapl:0" / "energy_uj").write_text("5001\n")
    assert source.read(devices[0]) == 5001


@pytest.mark.parametrize("name", ["package-1", "intel-rapl:1"])
def test_one_package_by_name(root, name):
    assert [d.id for d in RaplSource([name], root=root).open()] == ["package-1"]


def test_a_package_that_is_not_there(root):
    with pytest.raises(SourceError, match="no package package-5; there are package-0, package-1"):
        RaplSource(["package-5"], root=root).open()


def test_memory_mapped_packages_where_there_are_no_others(tmp_path):
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", "9")
    source = RaplSource(root=tmp_path)
    assert source.read(source.open()[0]) == 9


def test_no_range_is_no_wrap(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0", most="0")
    assert RaplSource(root=tmp_path).open()[0].wraps_at_microjoules is None


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_no_rapl(tmp_path, folder):
    with pytest.raises(SourceError, match="modprobe intel_rapl_msr"):
        RaplSource(root=tmp_path / folder).open()


def test_unreadable_by_an_ordinary_user():
    with tempfile.TemporaryDirectory() as name:  # unlike tmp_path, others may enter it
        root = Path(name)
        root.chmod(0o755)
        zone(root, "intel-rapl:0", "package-0").joinpath("energy_uj").chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(SourceError, match=r"energy_uj: only root .* CAP_DAC_READ"):
                RaplSource(root=root).open()
        finally:
            if user == 0:
                os.seteuid(user)


@pytest.mark.parametrize("content", [b"", b"-5\n", b"many\n", b"\xff\n", b"1.5\n"])
def test_nonsense_in_a_file(root, content):
    source = RaplSource(root=root)
    device = source.open()[0]
    (root / "intel-rapl:0" / "energy_uj").write_bytes(content)
    with pytest.raises(SourceError, match="intel-rapl:0/energy_uj"):
        source.read(device)


def test_gone_and_back(root):
    source = RaplSource(root=root)
    device = source.open()[0]
    (root / "intel-rapl:0" / "energy_uj").unlink()
    with pytest.raises(SourceError, match="No such file"):
        source.read(device)
    (root / "intel-rapl:0" / "energy_uj").write_text("3")
    source.open()
    assert source.read(device) == 3
    source.close()
    with pytest.raises(SourceError, match="not open"):
        source.read(device)
