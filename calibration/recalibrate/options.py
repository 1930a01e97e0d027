"""Options of `joulegate recalibrate`; the work is in `calibration.recalibrate.command`."""

from pathlib import Path
from typing import Annotated

import typer


def recalibrate(
    prometheus: Annotated[str | None, typer.Option(help="Prometheus's address.")] = None,
    window: Annotated[str, typer.Option(help="How far back to read: 90m, 6h, 7d.")] = "6h",
    profile: Annotated[
        Path | None, typer.Option(help="The live profile; default: the shipped one.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write; default: --profile.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="DEPLOYMENT, or DEPLOYMENT=KEY in the profile: only these."),
    ] = None,
    form: Annotated[
        str, typer.Option(help="additive, interaction, context, load, load-context or best.")
    ] = "best",
    block: Annotated[
        str | None,
        typer.Option(
            help="Length of the blocks that errors are taken over: 10m; default: by window."
        ),
    ] = None,
    min_requests: Annotated[int, typer.Option(min=10, help="Gate: least requests.")] = 100,
    min_blocks: Annotated[int, typer.Option(min=4, help="Gate: least busy blocks.")] = 8,
    min_spread: Annotated[
        float, typer.Option(min=0, help="Gate: least sd over mean of either length.")
    ] = 0.05,
    max_condition: Annotated[
        float, typer.Option(min=1, help="Gate: largest condition number.")
    ] = 300.0,
    max_interval: Annotated[
        float, typer.Option(min=0, help="Gate: largest half of a 95% interval, as a share.")
    ] = 0.25,
    max_change: Annotated[
        float, typer.Option(min=1, help="Gate: largest factor between old and new.")
    ] = 3.0,
    max_influence: Annotated[
        float, typer.Option(min=0, help="Gate: most that one scrape may move the mean, as a share.")
    ] = 0.1,
    max_missing: Annotated[
        float, typer.Option(min=0, max=1, help="Gate: most joules missing where requests are dear.")
    ] = 0.1,
    min_gain: Annotated[
        float,
        typer.Option(min=0, max=1, help="Gate: by which share the live profile must be off."),
    ] = 0.03,
    prior_requests: Annotated[
        float, typer.Option(min=0, help="Requests that the live profile counts as beside few.")
    ] = 100.0,
    enough_requests: Annotated[
        int, typer.Option(min=1, help="Requests from which on it no longer counts.")
    ] = 2000,
    header: Annotated[
        list[str] | None, typer.Option(help="'Name: value' to send; may be repeated.")
    ] = None,
    bearer_token_file: Annotated[
        Path | None, typer.Option(help="File with a token to send.")
    ] = None,
    match: Annotated[
        list[str] | None,
        typer.Option(help="LABEL=VALUE that series must have: one's own among several gateways'."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for an answer.")] = 30.0,
    watch: Annotated[str | None, typer.Option(help="Again and again, each 15m, say.")] = None,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Put the profile before this one back.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write no profile.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Refit the profile from the gateways' own traffic; see docs/recalibration.md."""
    from calibration.recalibrate import command as recalibrate_command  # noqa: PLC0415
    from calibration.recalibrate import gates  # noqa: PLC0415
    from calibration.recalibrate import prior as pull  # noqa: PLC0415
    from calibration.recalibrate.refit_models import RefitSettings  # noqa: PLC0415

    options = recalibrate_command.RecalibrateOptions(
        prometheus=prometheus,
        window=window,
        profile=profile,
        out=out or profile,
        model=model or [],
        form=form,
        block=block,
        settings=RefitSettings(
            limits=gates.GateLimits(
                min_requests=min_requests,
                min_blocks=min_blocks,
                min_spread=min_spread,
                max_condition=max_condition,
                max_interval=max_interval,
                max_change=max_change,
                max_influence=max_influence,
                max_missing=max_missing,
                min_gain=min_gain,
            ),
            prior_settings=pull.PriorSettings(prior_requests, enough_requests),
        ),
        match=match or [],
        header=header or [],
        bearer_token_file=bearer_token_file,
        timeout=timeout,
        watch=watch,
        rollback=rollback,
        dry_run=dry_run,
        as_json=as_json,
    )
    raise typer.Exit(code=recalibrate_command.run(options))
