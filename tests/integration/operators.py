"""A `joulegate serve` with a port for operators, and requests to either port."""

import contextlib

import aiohttp

from tests.integration.process import serve


@contextlib.asynccontextmanager
async def serving(folder, urls, *arguments, **more):
    """Serve phi-3-mini on these servers; yields both addresses and the process."""
    backends = [{"url": url} for url in urls]
    models = [{"name": "phi-3-mini", "context": 4096, "backends": backends}]
    config = {"models": models, "admin": {"port": 0}} | more
    async with serve(folder, {}, *arguments, **config) as served:
        admin = await served.process.says(r"operators on (http://\S+)")
        yield served.url, admin[1], served.process


async def fetch(address, path, body=None, **headers):
    """Status and JSON (or text) of one request on a connection of its own."""
    headers["connection"] = "close"
    method = "GET" if body is None else "POST"
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.request(method, address + path, json=body) as response,
    ):
        text = await response.text()
        if response.content_type == "application/json":
            return response.status, await response.json()
        return response.status, text
