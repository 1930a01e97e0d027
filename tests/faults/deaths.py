"""`python -m tests.faults.deaths`: one of three backends killed every few seconds under streams.

Real processes: three simulators and `joulegate serve`; the clients are the OpenAI SDK without
retries. A killed backend is started again at once, so two are up at any time. Exits 1 where a
request failed before its first token, a stream was cut without an exception, or there were more
than 1.2 attempts a request.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import openai

from tests.e2e.processes import free_port
from tests.integration.harness import total, until

_JOULEGATE = Path(sys.executable).with_name("joulegate")
_MODEL = "phi-3-mini"
_READY_SECONDS = 60.0
_MOST_ATTEMPTS = 1.2
WHOLE = "whole"
RAISED = "raised after the first token"
_rng = random.Random(1)


class Process:
    """A command of Joulegate's, started again whenever it was killed."""

    def __init__(self, log: Path, *words: object) -> None:
        self._argv = [str(word) for word in (_JOULEGATE, *words)]
        self._log = log
        self._process: asyncio.subprocess.Process

    async def start(self) -> None:
        """Start it; it may take a while to listen."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )

    async def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Kill it and wait until it is gone."""
        if self._process.returncode is None:
            self._process.send_signal(number)
        await self._process.wait()


async def get_page(url: str) -> str | None:
    """Return a page, or None where it cannot be had."""
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return await answer.text() if answer.ok else None
    except aiohttp.ClientError:
        return None


async def wait_until(well: Callable[[str], bool], url: str) -> None:
    """Wait until a server answers 200 with a page that is well. Raises AssertionError."""

    async def answers_well() -> bool:
        page = await get_page(url)
        return page is not None and well(page)

    await until(answers_well, url, _READY_SECONDS)


def is_up(_: str) -> bool:
    """Whatever the page says."""
    return True


async def stream_one(client: openai.AsyncOpenAI, tokens: int) -> str:
    """Run a stream to its end; return its fate."""
    began = finished = False
    try:
        stream = await client.chat.completions.create(
            model=_MODEL,
            messages=[{"role": "user", "content": "Tell me a story."}],
            max_tokens=tokens,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        async for chunk in stream:
            for choice in chunk.choices:
                began = began or bool(choice.delta.content)
                finished = finished or choice.finish_reason is not None
    except openai.OpenAIError as error:
        return RAISED if began else f"failed before: {error}"
    return WHOLE if finished else "cut without a word"


class Drill:
    """Three backends, a gateway, and what became of the streams."""

    def __init__(self, folder: Path) -> None:
        *ports, port = (free_port() for _ in range(4))
        self.backends = {
            Process(
                folder / f"{port}.log", "backend", _MODEL, "--simulate", "--port", port
            ): f"http://127.0.0.1:{port}"
            for port in ports
        }
        config = folder / "gateway.yaml"
        urls = [{"url": root} for root in self.backends.values()]
        config.write_text(
            json.dumps({"models": [{"name": _MODEL, "context": 4096, "backends": urls}]})
        )
        self._gateway = Process(folder / "gateway.log", "serve", "--config", config, "--port", port)
        self.root = f"http://127.0.0.1:{port}"
        self.fates: Counter[str] = Counter()
        self.deaths = 0
        self.page = ""

    @contextlib.asynccontextmanager
    async def started(self) -> AsyncIterator[None]:
        """Have all of them run, and keep the gateway's last page of metrics."""
        for process in (*self.backends, self._gateway):
            await process.start()
        try:
            for root in (*self.backends.values(), self.root):
                await wait_until(is_up, f"{root}/health")
            await wait_until(all_are_up, f"{self.root}/metrics")
            yield
            self.page = await get_page(f"{self.root}/metrics") or ""
        finally:
            await self._gateway.end(signal.SIGTERM)
            for process in self.backends:
                await process.end()

    async def kill_for(self, seconds: float, streams: int, every_seconds: float) -> None:
        """Stream and kill for so long."""
        async with self.started():
            until = time.monotonic() + seconds
            async with (
                openai.AsyncOpenAI(
                    base_url=f"{self.root}/v1", api_key="x", max_retries=0, timeout=60
                ) as client,
                asyncio.TaskGroup() as group,
            ):
                group.create_task(self._keep_killing(until, every_seconds))
                for _ in range(streams):
                    group.create_task(self.keep_streaming(client, lambda: time.monotonic() < until))

    async def keep_streaming(self, client: openai.AsyncOpenAI, goes_on: Callable[[], bool]) -> None:
        """Run one stream after another, and note their fates."""
        while goes_on():
            self.fates[await stream_one(client, _rng.randrange(20, 200))] += 1

    async def _keep_killing(self, until: float, every_seconds: float) -> None:
        for victim, root in itertools.cycle(self.backends.items()):
            await asyncio.sleep(every_seconds)
            # Two must be up: the one before has to be back in use.
            await wait_until(all_are_up, f"{self.root}/metrics")
            if time.monotonic() >= until:
                return
            await victim.end()
            self.deaths += 1
            await victim.start()
            await wait_until(is_up, f"{root}/health")

    def report(self) -> bool:
        """Print what came of it; return whether nothing was wrong."""
        requests = sum(self.fates.values())
        retries = total(self.page, "joulegate_retries_total")
        free = total(self.page, "joulegate_retries_total", reason="unreachable")
        attempts = (requests + retries - free) / requests
        print(f"{self.deaths} deaths")
        for fate, count in self.fates.most_common():
            print(f"{count:7} {fate[:160]}")
        print(f"{attempts:.3f} attempts a request, {free:g} refused connections besides")
        bad = self.fates.keys() - {WHOLE, RAISED}
        return not bad and attempts <= _MOST_ATTEMPTS and self.deaths > 0


def all_are_up(page: str) -> bool:
    """Whether the gateway uses all three."""
    return total(page, "joulegate_backend_up") == 3


def main() -> int:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.deaths", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two deaths")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="joulegate-deaths-") as folder:
        drill = Drill(Path(folder))
        asyncio.run(drill.kill_for(options.seconds, options.streams, options.every))
    return 0 if drill.report() else 1


if __name__ == "__main__":
    sys.exit(main())
