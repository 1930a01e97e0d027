"""`joulegate drain` and `undrain`: have a running gateway send one backend nothing new."""

import asyncio
import time
from http import HTTPStatus
from typing import Any

import msgspec

from backends.bearer import build_bearer
from backends.client import BackendClient
from backends.errors import BackendError
from backends.http.url import parse_request_url
from gateway import config as configs
from gateway.commands.drain_options import DrainOptions, DrainTarget, UndrainOptions
from gateway.console import FAILED, OK, err, out, print_json, report_failure, report_usage_error
from gateway.substitution import read_secret_file

_POLL_SECONDS = 0.5
_TIMEOUT_SECONDS = 10.0
_MOST_BYTES = 1 << 20


class AdminCallFailed(Exception):
    """The gateway refused, or could not be reached; the message says why."""


def run(options: DrainOptions) -> int:
    """Drain a backend and wait until nothing is in flight there; return the exit code."""
    return _run_change(options, drained=True)


def undrain_backend(options: UndrainOptions) -> int:
    """Readmit a drained backend; return the exit code."""
    return _run_change(DrainOptions(options.target, 0.0, options.as_json), drained=False)


def _run_change(options: DrainOptions, *, drained: bool) -> int:
    backend, wait_seconds = options.target.backend, options.wait_seconds
    try:
        url, token = _find_gateway(options.target)
        parse_request_url(url)
    except ValueError as error:
        return report_usage_error(error)
    try:
        state = asyncio.run(_change_drain(url, token, backend, wait_seconds, drained=drained))
    except AdminCallFailed as error:
        return report_failure(error)
    if options.as_json:
        print_json(state, line=True)
    else:
        said = f"{state['backend']}: {state['state']}, {state['inflight']} in flight"
        out.print(said, markup=False)
    return FAILED if drained and wait_seconds and state["inflight"] else OK


def _find_gateway(target: DrainTarget) -> tuple[str, str | None]:
    """Return the operators' address and token. Raises ValueError."""
    config, admin, token_file = target.config, target.admin, target.token_file
    token = None if token_file is None else read_secret_file(token_file, "--token-file")
    if admin is not None:
        return admin.rstrip("/"), token
    if config is None:
        raise ValueError("give --admin URL, or --config gateway.yaml that has `admin`")
    found = configs.load_config(config).admin
    if found is None:
        raise ValueError(f"{config}: has no `admin`, the port on which backends are drained")
    if not found.port:
        raise ValueError(f"{config}: admin.port is any free one; give --admin URL")
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(found.host, found.host)  # noqa: S104
    return f"http://{host}:{found.port}", token or found.token


async def _change_drain(
    url: str, token: str | None, backend: str, wait_seconds: float, *, drained: bool
) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = build_bearer(token)
    name = "drain" if drained else "undrain"
    async with BackendClient(connect_seconds=_TIMEOUT_SECONDS) as client:
        body = msgspec.json.encode({"backend": backend})
        state = await _call(client, "POST", f"{url}/admin/backends/{name}", headers, body)
        until = time.monotonic() + wait_seconds
        while drained and state["inflight"] and time.monotonic() < until:
            err.print(f"{state['backend']}: {state['inflight']} in flight", markup=False)
            await asyncio.sleep(_POLL_SECONDS)
            shown = await _call(client, "GET", f"{url}/admin/backends", headers, None)
            found = (one for one in shown["backends"] if one["backend"] == state["backend"])
            state = next(found, {**state, "inflight": 0})
    return state


async def _call(
    client: BackendClient, method: str, url: str, headers: dict[str, str], body: bytes | None
) -> dict[str, Any]:
    """Return the JSON that a call answers with. Raises AdminCallFailed."""
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            answer = await client.request(method, parse_request_url(url), body, headers)
            try:
                read = await answer.read_body(_MOST_BYTES)
            finally:
                answer.close()
    except (BackendError, TimeoutError) as error:
        raise AdminCallFailed(f"{url}: {str(error) or 'no answer in time'}") from None
    try:
        found: dict[str, Any] = msgspec.json.decode(read, type=dict[str, Any])
    except msgspec.DecodeError:
        found = {"error": {"message": f"status {answer.status}, and no JSON"}}
    if answer.status != HTTPStatus.OK:
        raise AdminCallFailed(f"{url}: {found.get('error', {}).get('message', answer.status)}")
    return found
