"""`joulegate backend MODEL`: vLLM for one of the three models, or the simulator in its place."""

import asyncio
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from backends.vllm import launcher, recipes
from gateway import profile as profiles
from gateway.console import FAILED, OK, err, log_to_stderr, make_stop_event, report_usage_error

if TYPE_CHECKING:
    from backends.simulator.answers import SimulatorSpec

_DEVICES = ("auto", "cpu", "gpu")


def run(
    *,
    model: str,
    host: str,
    port: int,
    model_path: Path | None,
    device: str,
    simulate: bool,
    speed: float,
    seed: int,
    profile: Path | None,
    show: bool,
    extra: list[str],
) -> int:
    """Become vLLM, or serve simulated answers until told to stop."""
    if device not in _DEVICES:
        return report_usage_error(f"--device: {device!r} is not one of {', '.join(_DEVICES)}")
    try:
        recipe = recipes.get_recipe(model)
        if simulate:
            return _run_simulator(model, host, port, speed, seed, profile, extra)
        if not show:
            launcher.launch_vllm(
                recipe,
                host=host,
                port=port,
                device=device,  # type: ignore[arg-type]
                model_path=model_path,
                extra=extra,
            )
        if launcher.wants_cpu(device):  # type: ignore[arg-type]
            extra = [*launcher.CPU_FLAGS, *extra]
        argv = launcher.build_command(
            recipe, host=host, port=port, model_path=model_path, extra=extra
        )
        print(shlex.join(argv))  # noqa: T201
    except (recipes.UnknownRecipeError, profiles.ProfileError) as error:
        return report_usage_error(error)
    except launcher.LaunchError as error:
        err.print(f"joulegate: {error}", markup=False)
        return FAILED
    return OK


def _run_simulator(
    model: str,
    host: str,
    port: int,
    speed: float,
    seed: int,
    profile: Path | None,
    extra: list[str],
) -> int:
    if extra:
        return report_usage_error(f"unknown option for the simulator: {extra[0]}")
    from backends.simulator.answers import SimulatorSpec  # noqa: PLC0415 - vLLM needs none of it
    from backends.simulator.cost_model import CostModel  # noqa: PLC0415

    fitted = profiles.load_profile(profile).get_model(model)
    recipe = recipes.get_recipe(model)
    truth = CostModel.from_profile(msgspec.to_builtins(fitted), context=recipe.context_tokens)
    log_to_stderr("info")
    spec = SimulatorSpec(model, truth, speed=speed, seed=seed)
    err.print(f"simulated {model} on http://{host}:{port}, {speed:g} x real time", markup=False)
    try:
        asyncio.run(_serve_simulator(spec, host, port))
    except OSError as error:
        err.print(f"joulegate: {host}:{port}: {error.strerror}", markup=False)
        return FAILED
    return OK


async def _serve_simulator(spec: "SimulatorSpec", host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM."""
    from backends.simulator import server  # noqa: PLC0415 - vLLM needs none of it

    stopped = make_stop_event()
    async with await server.start_simulator(spec, host, port):
        await stopped.wait()
