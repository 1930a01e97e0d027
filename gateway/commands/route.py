"""`joulegate route`: the ranking for a prompt, with every term; offline."""

import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from rich.table import Table

from backends.registry import Backend, Deployment
from gateway import config as configs
from gateway import profile as profiles
from gateway import tokens
from gateway.commands.demo.example_config import make_example_config
from gateway.commands.logged_decision import read_logged_decision
from gateway.commands.route_options import RouteOptions
from gateway.console import OK, out, print_json, report_failure, report_usage_error
from gateway.scheduling.decide import POLICIES, repeat_decision
from gateway.scheduling.decision import METRICS, MetricWeights, RoutingDecision
from gateway.service.client.api_error import ApiError
from gateway.service.request.body import parse_request
from gateway.service.request.deciding import Deciding
from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.plan import RoutingPlan, make_plan, no_candidate_error
from gateway.service.request.routing_table import ModelNames, RoutingSnapshot
from gateway.service.request.steering import HEADER_PREFIX

_PREDICTING: Final = (
    "max_latency_ms", "max_energy_joules", "min_accuracy", "infeasible", "config", "profile",
)  # fmt: skip
"""Options that a decision which is made again has no use for."""


def run(options: RouteOptions) -> int:
    """Decide for one prompt, or a logged request again, print the ranking; return the exit code."""
    if (options.prompt is None) == (options.logged is None):
        return report_usage_error("one of --prompt and --logged is needed, and not both")
    if options.logged is not None:
        return _run_logged(options, options.logged)
    if options.request is not None:
        return report_usage_error("--request is for --logged")
    try:
        parsed = configs.load_config(options.config) if options.config else make_example_config()
        loaded = (
            profiles.load_profile(options.profile)
            if options.profile
            else profiles.load_profile(parsed.profile_file, parsed.learnt_file)
        )
        text = sys.stdin.read() if options.prompt == "-" else str(options.prompt)
        made = decide_offline(
            parsed,
            loaded,
            text,
            options.steering,
            model=options.model,
            max_tokens=options.max_tokens,
        )
    except (configs.ConfigError, profiles.ProfileError, ApiError) as error:
        return report_usage_error(str(error).replace(HEADER_PREFIX.decode(), "--"))
    if options.as_json:
        print(msgspec.json.format(made.explain_decision("offline")).decode())  # noqa: T201
    else:
        print_decision(made.decision)
    if not made.decision.candidates:
        return report_failure(no_candidate_error(made.decision, made.ask.kind.prompt_member))
    return OK


def _run_logged(options: RouteOptions, logged: Path) -> int:
    """Make a logged decision again and print it, with what was chosen then."""
    for name in _PREDICTING:
        if getattr(options, name) is not None:
            shown = name.replace("_", "-")
            return report_usage_error(f"--{shown} does not go with --logged: nothing is predicted")
    given = {of: getattr(options, f"weight_{of}") for of in METRICS}
    shares = {of: share for of, share in given.items() if share is not None}
    try:
        request_id, was = read_logged_decision(logged, options.request)
        weights = MetricWeights.from_values(**shares) if shares else was.weights
        decision = repeat_decision(was, weights, options.policy or was.policy)
    except KeyError as error:
        return report_usage_error(
            f"{error} is no policy that ranks; there are: {', '.join(POLICIES)}"
        )
    except (OSError, ValueError) as error:
        return report_usage_error(str(error))
    if options.as_json:
        print_json(decision.to_dict(request_id=request_id, decision_us=0.0))
        return OK
    print_decision(decision)
    chosen, now = was.candidates[0], decision.candidates[0]
    same = (chosen.model, chosen.deployment) == (now.model, now.deployment)
    then = "as it was" if same else f"then it was {chosen.deployment}"
    out.print(f"request {request_id or '?'}: {then}", markup=False)
    return OK


def decide_offline(
    config: configs.GatewayConfig,
    profile: profiles.CostProfile,
    prompt: str,
    steering: Mapping[str, float | str | None],
    *,
    model: str,
    max_tokens: int | None,
) -> RoutingPlan:
    """Make the plan that the gateway would, were every backend up and idle. Raises ApiError."""
    body: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    members = msgspec.json.decode(msgspec.json.encode(body), type=dict[str, msgspec.Raw])
    headers = {
        HEADER_PREFIX + name.encode(): str(value).encode()
        for name, value in steering.items()
        if value is not None
    }
    rng = random.Random(0)  # noqa: S311 - nothing is sent, so nothing is drawn
    deployments = [
        Deployment(
            entry.name, entry.deployment_label, "", [Backend(entry.backends[0].root_url)], rng=rng
        )
        for entry in config.models
    ]
    ask = parse_request(EndpointKind.CHAT, members)
    load = config.reference_load
    return make_plan(
        ask,
        ModelNames(config).resolve_name(ask.model),
        headers,
        RoutingSnapshot(config, deployments, profile),
        tokens.load_token_counter(),
        # The config's own number, or nobody running; what a gateway has learnt is its own.
        Deciding(config.placement.rules(), fixed_load=load if isinstance(load, float) else 0.0),
    )


def print_decision(decision: RoutingDecision) -> None:
    """Print a decision as a table."""
    weights = decision.weights
    best = decision.best_candidate
    if best is not None:
        out.print(
            f"[bold]{best.model}[/] by {decision.policy}, weights accuracy {weights.accuracy:.3g}, "
            f"energy {weights.energy:.3g}, time {weights.time:.3g}; "
            f"{best.tokens_in} tokens in, {best.tokens_out} expected out; "
            f"profile {decision.profile_version}"
            + ("" if decision.feasible else "; [bold]every model breaks a bound[/]")
        )
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
        table.add_column("\nmodel", no_wrap=True)
        for name in (
            "\nscore", "accu-\nracy", "\nseconds", "\njoules",
            "cost:\naccur.", "\nenergy", "\ntime",
            "term:\naccur.", "\nenergy", "\ntime",
        ):  # fmt: skip
            table.add_column(name, justify="right", no_wrap=True)
        for scored in decision.candidates:
            table.add_row(
                scored.deployment,
                f"{scored.score:.4f}",
                f"{scored.accuracy:.3f}",
                f"{scored.predicted_seconds:.3f}",
                f"{scored.predicted_joules:.1f}",
                *(f"{value:.4f}" for value in (*scored.costs, *scored.terms)),
            )
        out.print(table)
    for excluded in decision.excluded:
        out.print(f"excluded: {excluded.deployment}: {excluded.reason}", markup=False)
