"""Counters out of a shared file: what is read, and what is said where nothing can be."""

import json

import pytest

from backends.meter.sources.choose import choose_source
from backends.meter.sources.counter_file import CounterFileSource
from backends.meter.sources.source import SourceError


class Shared:
    """The file, and the time."""

    def __init__(self, path):
        self.path, self.now_us = path, 1_000_000
        self.source = CounterFileSource(path, clock_us=lambda: self.now_us)

    def write(self, **gpus):
        told = {
            uuid: {"name": "H100", "millijoules": energy, "milliwatts": power}
            for uuid, (energy, power) in gpus.items()
        }
        self.path.write_text(json.dumps({"at_us": self.now_us, "kind": "nvml", "gpus": told}))


@pytest.fixture
def shared(tmp_path):
    return Shared(tmp_path / "counters")


def test_every_gpu_of_the_file_is_a_device(shared):
    shared.write(a=(5000, 70_000), b=(7000, 70_000))
    devices = shared.source.open()
    assert [(device.id, device.name) for device in devices] == [("a", "H100"), ("b", "H100")]
    assert [shared.source.read(device) for device in devices] == [5_000_000, 7_000_000]
    shared.now_us += 20_000
    shared.write(a=(5003, 70_000), b=(7009, 70_000))
    assert [shared.source.read(device) for device in devices] == [5_003_000, 7_009_000]


def test_one_turn_reads_the_file_once_and_the_next_reads_it_again(shared):
    shared.write(a=(5000, 70_000), b=(7000, 70_000))
    a, b = shared.source.open()
    assert shared.source.read(a) == 5_000_000
    shared.now_us += 20_000
    shared.write(a=(5003, 70_000), b=(7009, 70_000))
    # The same moment for both, whenever the file was replaced.
    assert shared.source.read(b) == 7_000_000
    assert [shared.source.read(device) for device in (b, a)] == [7_009_000, 5_003_000]


def test_power_is_summed_up_where_there_is_no_counter(shared):
    shared.write(a=(None, 100_000))
    (device,) = shared.source.open()
    first = shared.source.read(device)
    for _ in range(50):
        shared.now_us += 20_000
        shared.write(a=(None, 100_000))
        # However often one reading is looked at.
        shared.source.read(device)
        last = shared.source.read(device)
    assert last - first == 100_000_000


def test_a_counter_that_power_contradicts_is_left(shared):
    shared.write(a=(0, 300_000))
    (device,) = shared.source.open()
    for step in range(1, 1500):
        shared.now_us += 20_000
        shared.write(a=(1000 * step, 300_000))
        last = shared.source.read(device)
    assert shared.source.checks["a"] == pytest.approx(1 / 6, rel=0.05)
    assert last > 1_000_000 * 300 * 15


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "is not there yet: the model server's container writes it"),
        ("{", "counters: "),
        ('{"at_us": 1, "gpus": [1]}', "counters: "),
        ('{"at_us": 1, "error": "split up (MIG)"}', "sees no counter: split up \\(MIG\\)"),
        ('{"at_us": -9000000, "gpus": {}}', "is 10 s old: the model server's container has ended"),
    ],
)
def test_what_is_in_the_way_is_said(shared, text, said):
    if text is not None:
        shared.path.write_text(text)
    with pytest.raises(SourceError, match=said):
        shared.source.open()


def test_a_server_that_ends_and_one_that_has_other_gpus(shared):
    shared.write(a=(5000, 70_000))
    (device,) = shared.source.open()
    shared.now_us += 3_000_000
    with pytest.raises(SourceError, match="is 3 s old"):
        shared.source.read(device)
    shared.write(b=(1, 70_000))
    with pytest.raises(SourceError, match=r"H100 \(a\) is no longer there"):
        shared.source.read(device)
    (device,) = shared.source.open()
    assert (device.id, shared.source.read(device)) == ("b", 1_000_000 // 1000)


def test_it_is_chosen_by_name(tmp_path):
    source = choose_source("file", [str(tmp_path / "x")])
    assert isinstance(source, CounterFileSource)
    assert source.kind == "file"
