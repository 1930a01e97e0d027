"""The servers that backends run on, and the power of each: counted by a meter, or configured.

A meter that serves several servers tells one number for them, divided evenly among them here. A
server with several meters goes by the first that counts it.
"""

from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from backends.meter.client.request_handle import MeterConnection
from backends.registry import Backend, Deployment
from gateway.telemetry.host_clock import HostClock
from gateway.telemetry.host_power import HostPower, HostReading

_MICRO = 1e6


class MeteredHost:
    """One server: its clock, its power, the meters that serve it, the models of its backends."""

    __slots__ = ("clock", "links", "models", "power")

    def __init__(self, watts: float, now: float) -> None:
        self.clock = HostClock(watts, now)
        self.power = HostPower(watts)
        self.links: list[MeterConnection] = []
        self.models: list[str] = []


class MeteredHosts:
    """All servers of one process."""

    def __init__(self, deployments: Iterable[Deployment], watts: float, now: float) -> None:
        """Begin at `now`, monotonic seconds; `watts` is this process's part of each server's."""
        self._watts = watts
        self._hosts: dict[str, MeteredHost] = {}
        self._host_of: dict[str, MeteredHost] = {}
        self.change_deployments(deployments, now)

    def change_deployments(self, deployments: Iterable[Deployment], now: float) -> None:
        """Serve these from `now` on; a server without backends is kept for what still runs there.

        It draws nothing for anybody: what is idle there is no longer this gateway's.
        """
        for host in self._hosts.values():
            host.models.clear()
            host.links.clear()
        for deployment in deployments:
            for backend in deployment.backends:
                name = _name_host(backend)
                if name not in self._hosts:
                    self._hosts[name] = MeteredHost(self._watts, now)
                host = self._hosts[name]
                host.models.append(deployment.model)
                self._host_of[backend.label] = host
                if backend.meter is not None and backend.meter.link not in host.links:
                    host.links.append(backend.meter.link)
        links = [link for host in self._hosts.values() for link in host.links]
        self._hosts_served = {link: links.count(link) for link in links}
        self._numbers = {link: number for number, link in enumerate(self._hosts_served, 1)}

    def __iter__(self) -> Iterator[MeteredHost]:
        return iter(self._hosts.values())

    def find_host(self, backend: str) -> MeteredHost:
        """Return the server of a backend, by the backend's label."""
        return self._host_of[backend]

    def refresh_power(self, now: float) -> None:
        """Let each server draw what its meter has read last."""
        for host in self:
            link = next((link for link in host.links if link.host is not None), None)
            if link is not None and (energy := link.host) is not None:
                shared = _MICRO * self._hosts_served[link]
                reading = HostReading(
                    energy.source,
                    self._numbers[link],
                    energy.microjoules / shared,
                    energy.microseconds / _MICRO,
                )
                host.power.record_energy(reading, host.clock.read_charged_joules(now), now)
            host.power.expire_reading(now)
            host.clock.change_watts(host.power.watts, now)


def _name_host(backend: Backend) -> str:
    return urlsplit(backend.root).hostname or backend.label
