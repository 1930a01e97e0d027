"""`joulegate …` as a process of its own."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from pathlib import Path

import aiohttp
import yaml

from tests.integration.harness import total, until

JOULEGATE = Path(sys.executable).parent / "joulegate"


class Process:
    """One run; `lines` fills with what it says on stderr."""

    def __init__(self, process):
        self._process = process
        self.pid = process.pid
        self.lines = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self):
        async for line in self._process.stderr:
            self.lines.append(line.decode().rstrip())

    def said(self, pattern):
        """The first line that matches, if there is one yet."""
        return next((m for line in self.lines if (m := re.search(pattern, line))), None)

    async def says(self, pattern):
        """Wait for a line that matches."""

        def found():
            ended = self._process.returncode
            assert ended is None or self.said(pattern), (ended, self.lines)
            return self.said(pattern)

        return await until(found, f"{pattern!r}; so far: {self.lines}", seconds=60)

    def send(self, number):
        self._process.send_signal(number)

    async def ended(self):
        """Its exit code."""
        code = await asyncio.wait_for(self._process.wait(), 60)
        await self._reading
        return code

    async def close(self):
        # Its workers too, which outlive a process that is killed and hold its stderr open.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self._process.wait()
        await self._reading


@contextlib.asynccontextmanager
async def joulegate(*arguments, **options):
    """Run the command."""
    process = Process(
        await asyncio.create_subprocess_exec(
            JOULEGATE,
            *map(str, arguments),
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            **options,
        )
    )
    try:
        yield process
    finally:
        await process.close()


class Served:
    """A `joulegate serve` that is ready; every request is a connection of its own."""

    def __init__(self, process, url):
        self.process = process
        self.url = url

    async def get(self, path):
        async with (
            aiohttp.ClientSession() as http,
            http.get(self.url + path, headers={"connection": "close"}) as response,
        ):
            return response.status, await response.read()

    async def metric(self, name, **labels):
        _, page = await self.get("/metrics")
        return total(page.decode(), name, **labels)


@contextlib.asynccontextmanager
async def serve(folder, backends, *arguments, **config):
    """Serve phi-3-mini and friends ({name: url}) from a file in `folder`."""
    models = [
        {"name": name, "context": 4096, "backends": [{"url": url}]}
        for name, url in backends.items()
    ]
    path = folder / "gateway.yaml"
    path.write_text(yaml.safe_dump({"models": models} | config))
    async with joulegate("serve", "--config", path, "--port", 0, *arguments) as process:
        found = await process.says(r"running on (http://127\.0\.0\.1:\d+)")
        served = Served(process, found[1])

        async def ready():
            try:
                status, _ = await served.get("/ready")
            except OSError:
                return False
            return status == 200

        await until(ready, "/ready", seconds=60)
        yield served
