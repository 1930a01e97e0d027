"""Counters that a test moves, and a sampler of them under a fake clock."""

from backends.meter.daemon.counter import MICRO
from backends.meter.daemon.sampler import CounterSampler
from backends.meter.sources.source import EnergyDevice, SourceError


class Counters:
    """A source whose counters are functions of the time, or numbers that a test sets."""

    kind = "scripted"
    coarse = False

    def __init__(self, *devices):
        self.now_us = 1_000_000
        self.devices = devices or (EnergyDevice("a", "A"),)
        self.values = {device.id: 0 for device in self.devices}
        self.broken = None
        self.reads = 0

    def clock(self):
        return self.now_us

    def open(self):
        if self.broken == "open":
            raise SourceError("no driver")
        return self.devices

    def read(self, device):
        self.reads += 1
        if self.broken == device.id:
            raise SourceError(f"{device.id} is lost")
        value = self.values[device.id]
        return value(self.now_us) if callable(value) else value

    def close(self):
        pass


def opened(source, **options):
    sampler = CounterSampler("l", source, clock=source.clock, **options)
    sampler.open_source()
    assert [news.kind for news in sampler.take_events()] == ["start"]
    return sampler


def turn(source, sampler, seconds):
    """Do for so long what the thread does; what it told of."""
    told = []
    end_us = source.now_us + round(seconds * MICRO)
    while source.now_us < end_us:
        source.now_us += round(sampler.pause_seconds() * MICRO)
        sampler.read()
        told += sampler.take()
    return told


def updated_every(period_us, watts=300, phase_us=0):
    """A counter of that power that moves once a period."""
    return lambda now_us: (now_us - phase_us) // period_us * period_us * watts
