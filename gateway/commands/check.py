"""`joulegate check`: tell whether a config, of gateway or meter, or a profile is fit for use."""

from pathlib import Path

import msgspec

from gateway import config as configs
from gateway import meter_config as meters
from gateway import profile as profiles
from gateway.commands.serve import check_profiles
from gateway.console import OK, out, report_usage_error


def run(
    *,
    config: Path | None,
    profile: Path | None,
    meter: Path | None,
    schema: bool,
    meter_schema: bool,
    as_json: bool,
) -> int:
    """Check what is given; print what was found."""
    if schema or meter_schema:
        shown = configs.build_json_schema() if schema else meters.build_json_schema()
        print(msgspec.json.format(msgspec.json.encode(shown)).decode())  # noqa: T201
        return OK
    if config is None and profile is None and meter is None:
        return report_usage_error("nothing to check: give --config, --profile or --meter")
    found: dict[str, object] = {}
    try:
        if config is not None:
            parsed = configs.load_config(config)
            found["config"] = str(config)
            found["models"] = {
                model.deployment_label: [backend.root_url for backend in model.backends]
                for model in parsed.models
            }
            found["profile_version"] = check_profiles(parsed).version
            found["policy"] = parsed.policy
            found["placement"] = parsed.placement.mode
        if profile is not None:
            loaded = profiles.load_profile(profile)
            found["profile"] = str(profile)
            found["profile_version"] = loaded.version
            found["profile_models"] = sorted(loaded.models)
        if meter is not None:
            found["meter"] = str(meter)
            found["ledgers"] = {
                ledger.name: [backend.root_url for backend in ledger.backends]
                for ledger in meters.load_meter_config(meter).ledgers
            }
    except (configs.ConfigError, profiles.ProfileError) as error:
        return report_usage_error(error)
    if as_json:
        print(msgspec.json.encode(found).decode())  # noqa: T201
        return OK
    for name, value in found.items():
        out.print(f"{name}: {value}", markup=False)
    out.print("good")
    return OK
