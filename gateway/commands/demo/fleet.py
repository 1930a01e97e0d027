"""The demo's simulated GPUs, their meter, and the profile that the gateway has of them."""

import contextlib
from collections.abc import AsyncIterator, Mapping

import msgspec

from backends.meter.daemon import server as meters
from backends.meter.daemon.ledger_runner import BackendSpec, LedgerSpec
from backends.meter.sources.simulated import SimulatorSource
from backends.simulator.cost_model import CostModel
from backends.simulator.server import RunningSimulator, start_simulator
from backends.simulator.spec import SimulatorSpec
from backends.vllm.recipes import RECIPES
from gateway import profile as profiles
from gateway.scheduling.cost import RegressionForm

TOOLS = ("phi-3-mini", "mistral-7b")
REPLICATED = "phi-3-mini"
"""The model that has two backends where the demo asks for them."""
NOISE = 0.03
EMBEDDER = "embed-small"
"""A fourth model, which embeds and ranks: chat never chooses it."""
EMBEDDER_CONTEXT = 512
_SHARED = 0.85
"""Share of a token's joules that is a step's, which company shares; measured on real GPUs."""
_SLOWDOWN = 0.02
"""By how much each other request lengthens a token."""
_METER_HZ = 200.0
"""Ten times as often as usual, because simulated time runs that much faster."""


def make_demo_models(profile: profiles.CostProfile) -> dict[str, profiles.ModelProfile]:
    """Return the profile's models in the `load` form: alone they cost what they did.

    Their published costs are of requests alone; what company changes is the demo's assumption.
    """
    models = {}
    for name, model in profile.models.items():
        s0, s1, s2 = model.seconds.coefficients
        j0, j1, j2 = model.joules.coefficients
        seconds = [s0, s1, s2, 0.0, _SLOWDOWN * s2]
        joules = [j0, j1, (1.0 - _SHARED) * j2, 0.0, _SHARED * j2]
        models[name] = msgspec.structs.replace(
            model,
            seconds=profiles.CostRegression(RegressionForm.LOAD, seconds),
            joules=profiles.CostRegression(RegressionForm.LOAD, joules),
            provenance={**model.provenance, "load": "assumed for the demo"},
        )
    return models


def make_embedder() -> profiles.ModelProfile:
    """Return the profile of a small model that only reads: its costs are assumed for the demo."""
    return profiles.ModelProfile(
        accuracy=profiles.AccuracyProfile(0.0),
        seconds=profiles.CostRegression(RegressionForm.ADDITIVE, [0.004, 2e-5, 0.0]),
        joules=profiles.CostRegression(RegressionForm.ADDITIVE, [0.4, 0.004, 0.0]),
        provenance={"costs": "assumed for the demo"},
    )


def speed_up_models(
    models: Mapping[str, profiles.ModelProfile], speed: float
) -> dict[str, profiles.ModelProfile]:
    """Return the models of the same hardware running `speed` times as fast; joules stay."""
    made = {}
    for name, model in models.items():
        seconds = msgspec.structs.replace(
            model.seconds,
            coefficients=[value / speed for value in model.seconds.coefficients],
            covariance=None,
            rmse=None,
        )
        provenance = {**model.provenance, "simulated": f"seconds divided by {speed:g} for the demo"}
        made[name] = msgspec.structs.replace(model, seconds=seconds, provenance=provenance)
    return made


@contextlib.asynccontextmanager
async def run_simulators(
    models: Mapping[str, profiles.ModelProfile],
    speed: float,
    *,
    noise: float = NOISE,
    replicas: int = 1,
    answer_tokens: float | None = None,
) -> AsyncIterator[dict[str, RunningSimulator]]:
    """Run a simulated backend for each of the three models, which costs what `models` says.

    The embedder runs where `models` has it.
    The replicated one has further `replicas`, by the names that `name_replica` gives.
    `answer_tokens` is the mean of their answers; None: what the profile says.
    """
    told = {} if answer_tokens is None else {"output": (0.0, answer_tokens)}
    async with contextlib.AsyncExitStack() as stack:
        running = {}
        for seed, recipe in enumerate(RECIPES.values()):
            fitted = msgspec.to_builtins(models[recipe.name])
            fields = {"context": recipe.context_tokens, "noise": noise} | told
            truth = CostModel.from_profile(fitted, **fields)
            for number in range(replicas if recipe.name == REPLICATED else 1):
                spec = SimulatorSpec(
                    recipe.name,
                    truth,
                    speed=speed,
                    seed=seed + 100 * number,
                    tools=recipe.name in TOOLS,
                )
                name = name_replica(recipe.name, number)
                running[name] = await stack.enter_async_context(await start_simulator(spec))
        if EMBEDDER in models:
            fitted = msgspec.to_builtins(models[EMBEDDER])
            truth = CostModel.from_profile(fitted, context=EMBEDDER_CONTEXT, noise=noise)
            spec = SimulatorSpec(EMBEDDER, truth, speed=speed, embeddings=True)
            running[EMBEDDER] = await stack.enter_async_context(await start_simulator(spec))
        yield running


def name_replica(model: str, number: int) -> str:
    """Return a backend's name: the model's, and from the second on its number."""
    return model if number == 0 else f"{model}-{number + 1}"


async def start_meter(urls: Mapping[str, str]) -> meters.RunningMeter:
    """Start a meter with a ledger for each simulated backend."""
    return await meters.start_meter(
        [LedgerSpec(name, SimulatorSource(url), (BackendSpec(url),)) for name, url in urls.items()],
        hz=_METER_HZ,
    )
