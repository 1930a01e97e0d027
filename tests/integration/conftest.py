"""Worlds to test in: one per test, and a fleet that a module's tests share."""

import contextlib
import shutil
import signal
from dataclasses import dataclass

import pytest
import pytest_asyncio

from backends.simulator.server import RunningSimulator
from tests.integration.harness import Gate, World, model, until
from tests.integration.keys import KeyRing
from tests.integration.nvml_script import Script, build


@pytest.fixture(scope="session", autouse=True)
def _children_heed_interrupts():
    # A shell's background job ignores SIGINT, and so would the processes that a test starts in one.
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory):
    """A folder with the stub of libnvidia-ml.so.1 in it."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("the stub of libnvidia-ml.so.1 needs a C compiler (cc)")
    folder = tmp_path_factory.mktemp("nvml")
    build(compiler, folder)
    return folder


@pytest.fixture
def script(nvml_library, tmp_path):
    """What the stub's GPUs do."""
    return Script(nvml_library, tmp_path / "script")


@pytest.fixture
async def world():
    """A place to start gateways and backends in, for one test."""
    async with contextlib.AsyncExitStack() as stack:
        yield World(stack)


@pytest.fixture
def ring(tmp_path):
    """A file of API keys, none yet."""
    return KeyRing(tmp_path / "keys.yaml")


@dataclass
class Fleet:
    """The three models behind one gateway; phi-3-mini has two backends."""

    world: World
    gate: Gate
    phi: tuple[RunningSimulator, RunningSimulator]
    mistral: RunningSimulator
    falcon: RunningSimulator

    @property
    def all(self):
        return (*self.phi, self.mistral, self.falcon)

    def fail(self, servers, kind, **fields):
        for server in servers:
            server.faults.set_fault(kind, **fields)

    async def heal(self):
        """Make everything well again, and see that no test leaves anything running."""
        for server in self.all:
            server.faults.clear_faults()
        for backend in self.gate.gateway.backends:
            backend.record_retry_after(1e-9, 0)  # a `Retry-After` of one test ends with it
        await until(lambda: all(server._listener for server in self.all), "sockets to reopen")
        await until(lambda: self.gate.idle, "the gateway to be idle")
        await until(lambda: self.world.empty, "the engines to be empty")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def _fleet(request):
    """Started once a module; FLEET in the module adds to the gateway's config."""
    async with contextlib.AsyncExitStack() as stack:
        world = World(stack)
        phi = (await world.simulator("phi-3-mini"), await world.simulator("phi-3-mini"))
        mistral = await world.simulator("mistral-7b")
        falcon = await world.simulator("falcon-7b", tools=False)
        able = ("chat", "completions", "logprobs", "tools")
        gate = await world.gate(
            model("phi-3-mini", *phi, capabilities=able),
            model("mistral-7b", mistral, capabilities=able),
            model("falcon-7b", falcon),
            **getattr(request.module, "FLEET", {}),
        )
        yield Fleet(world, gate, phi, mistral, falcon)


@pytest_asyncio.fixture(loop_scope="module")
async def fleet(_fleet):
    """The module's fleet, whole again after each test."""
    yield _fleet
    await _fleet.heal()


@pytest_asyncio.fixture(loop_scope="module")
async def gate(fleet):
    """The gateway of the fleet."""
    return fleet.gate
