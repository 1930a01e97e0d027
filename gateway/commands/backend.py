"""`joulegate backend MODEL`: vLLM for one of the three models, or a simulator of any model."""

import shlex
from pathlib import Path

import msgspec

from backends.vllm import launcher, recipes
from gateway import profile as profiles
from gateway.console import (
    OK,
    err,
    log_to_stderr,
    report_failure,
    report_usage_error,
    run_until_told,
)
from gateway.library.model_profile import build_model_profile
from gateway.library.shipped import load_library

_DEVICES = ("auto", "cpu", "gpu")
_SIMULATED_CONTEXT_TOKENS = 32768
"""Context of a simulated model that has no recipe: what the library's were measured within."""
_DRAIN_SECONDS = 30.0
"""How long requests run on after SIGTERM; new ones are refused."""


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
        if simulate:
            return _run_simulator(model, host, port, speed, seed, profile, extra)
        recipe = recipes.get_recipe(model)
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
        return report_failure(error)
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
    from backends.simulator.cost_model import CostModel  # noqa: PLC0415
    from backends.simulator.server import start_simulator  # noqa: PLC0415
    from backends.simulator.spec import SimulatorSpec  # noqa: PLC0415 - vLLM needs none of it

    if profile is None and "@" in model:
        fitted = build_model_profile(load_library(), model)
    else:
        fitted = profiles.load_profile(profile).get_model(model)
    recipe = recipes.RECIPES.get(model)
    context = recipe.context_tokens if recipe else _SIMULATED_CONTEXT_TOKENS
    truth = CostModel.from_profile(msgspec.to_builtins(fitted), context=context)
    log_to_stderr("info")
    spec = SimulatorSpec(model, truth, speed=speed, seed=seed)
    err.print(f"simulated {model} on http://{host}:{port}, {speed:g} x real time", markup=False)
    return run_until_told(
        start_simulator(spec, host, port),
        host,
        port,
        leave=lambda running: running.drain(_DRAIN_SECONDS),
    )
