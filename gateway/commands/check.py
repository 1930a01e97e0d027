"""`joulegate check`: tell whether a config, or a profile, is fit for use."""

from pathlib import Path

import msgspec

from gateway import config as configs
from gateway import profile as profiles
from gateway.commands.console import OK, complain, out
from gateway.commands.serve import check_profile


def run(*, config: Path | None, profile: Path | None, schema: bool, as_json: bool) -> int:
    """Check what is given; print what was found."""
    if schema:
        print(msgspec.json.format(msgspec.json.encode(configs.json_schema())).decode())  # noqa: T201
        return OK
    if config is None and profile is None:
        return complain("nothing to check: give --config or --profile")
    found: dict[str, object] = {}
    try:
        if config is not None:
            parsed = configs.load(config)
            found["config"] = str(config)
            found["models"] = {
                model.label: [backend.root for backend in model.backends] for model in parsed.models
            }
            found["profile_version"] = check_profile(parsed).version
        if profile is not None:
            loaded = profiles.load(profile)
            found["profile"] = str(profile)
            found["profile_version"] = loaded.version
            found["profile_models"] = sorted(loaded.models)
    except (configs.ConfigError, profiles.ProfileError) as error:
        return complain(error)
    if as_json:
        print(msgspec.json.encode(found).decode())  # noqa: T201
        return OK
    for name, value in found.items():
        out.print(f"{name}: {value}", markup=False)
    out.print("good")
    return OK
