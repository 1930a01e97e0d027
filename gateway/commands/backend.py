"""`joulegate backend MODEL`: vLLM for one of the three models, or a simulator of any model."""

import shlex

import msgspec

from backends.vllm import launcher, recipes
from gateway import profile as profiles
from gateway.commands.backend_options import BackendOptions
from gateway.console import (
    OK,
    err,
    report_failure,
    report_usage_error,
    run_until_told,
)
from gateway.library.model_profile import build_model_profile
from gateway.library.shipped import load_library
from gateway.stderr_log import log_to_stderr

_DEVICES = ("auto", "cpu", "gpu")
_SIMULATED_CONTEXT_TOKENS = 32768
"""Context of a simulated model that has no recipe: what the library's were measured within."""
_DRAIN_SECONDS = 30.0
"""How long requests run on after SIGTERM; new ones are refused."""


def run(options: BackendOptions) -> int:
    """Become vLLM, or serve simulated answers until told to stop; return the exit code."""
    device, extra = options.device, options.context.args
    if device not in _DEVICES:
        return report_usage_error(f"--device: {device!r} is not one of {', '.join(_DEVICES)}")
    try:
        if options.simulate:
            return _run_simulator(options)
        recipe = recipes.get_recipe(options.model)
        if not options.show:
            launcher.launch_vllm(
                recipe,
                host=options.host,
                port=options.port,
                device=device,  # type: ignore[arg-type]
                model_path=options.model_path,
                extra=extra,
            )
        if launcher.wants_cpu(device):  # type: ignore[arg-type]
            extra = [*launcher.CPU_FLAGS, *extra]
        argv = launcher.build_command(
            recipe,
            host=options.host,
            port=options.port,
            model_path=options.model_path,
            extra=extra,
        )
        print(shlex.join(argv))  # noqa: T201
    except (recipes.UnknownRecipeError, profiles.ProfileError) as error:
        return report_usage_error(error)
    except launcher.LaunchError as error:
        return report_failure(error)
    return OK


def _run_simulator(options: BackendOptions) -> int:
    model, host, port = options.model, options.host, options.port
    if options.context.args:
        return report_usage_error(f"unknown option for the simulator: {options.context.args[0]}")
    from backends.simulator.cost_model import CostModel  # noqa: PLC0415
    from backends.simulator.server import start_simulator  # noqa: PLC0415
    from backends.simulator.spec import SimulatorSpec  # noqa: PLC0415 - vLLM needs none of it

    if options.profile is None and "@" in model:
        fitted = build_model_profile(load_library(), model)
    else:
        fitted = profiles.load_profile(options.profile).get_model(model)
    recipe = recipes.RECIPES.get(model)
    context = recipe.context_tokens if recipe else _SIMULATED_CONTEXT_TOKENS
    truth = CostModel.from_profile(msgspec.to_builtins(fitted), context=context)
    log_to_stderr("info")
    spec = SimulatorSpec(model, truth, speed=options.speed, seed=options.seed)
    err.print(
        f"simulated {model} on http://{host}:{port}, {options.speed:g} x real time", markup=False
    )
    return run_until_told(
        start_simulator(spec, host, port),
        host,
        port,
        leave=lambda running: running.drain(_DRAIN_SECONDS),
    )
