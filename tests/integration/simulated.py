"""A simulated vLLM for one test, and what is read of its answers and metrics."""

import aiohttp
import openai
import pytest

from backends.simulator.cost_model import CostModel, SimulatedCost
from backends.simulator.server import start_simulator
from backends.simulator.spec import SimulatorSpec

TRUTH = CostModel(
    seconds=SimulatedCost("additive", (0.02, 0.001, 0.02)),
    joules=SimulatedCost("additive", (40.0, 0.3, 5.0)),
    output=(0.0, 30.0),
    output_sd=0.0,
    context=512,
)
SPEC = SimulatorSpec(model="phi-3-mini", truth=TRUTH, speed=200.0, seed=3)
HELLO = [{"role": "user", "content": "Hello there"}]
CHAT = {"model": "phi-3-mini", "messages": HELLO}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "days": {"type": "integer", "default": 3},
                "note": {"type": "string"},
            },
            "required": ["city", "unit", "days"],
        },
    },
}


def spec(**fields):
    return SimulatorSpec(**{f: getattr(SPEC, f) for f in SPEC.__slots__} | fields)


@pytest.fixture
async def running():
    async with await start_simulator(SPEC) as server:
        yield server


@pytest.fixture
async def http(running):
    timeout = aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(running.url, timeout=timeout) as session:
        yield session


@pytest.fixture
async def sdk(running):
    async with openai.AsyncOpenAI(
        base_url=running.url + "/v1", api_key="none", max_retries=0, timeout=20
    ) as client:
        yield client


async def metric(http, name, **labels):
    text = await (await http.get("/metrics")).text()
    for line in text.splitlines():
        if line.startswith(name + "{") and all(f'{k}="{v}"' in line for k, v in labels.items()):
            return float(line.rsplit(" ", 1)[1])
    raise AssertionError(f"{name} {labels} is not in the metrics")
