"""`python -m tests.faults.rollout`: each of three backends replaced in turn, under 100 streams.

Real processes: three simulators and `joulegate serve`; the clients are the OpenAI SDK without
retries. A backend gets SIGTERM, refuses new requests, finishes what it runs and ends; another takes
its place, and the next one goes once the gateway uses that. Exits 1 where a stream was not whole.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
from pathlib import Path

import openai

from tests.faults.deaths import Drill, all_are_up, is_up, wait_until

READY_SECONDS = 6
"""How long a new one is there before the next goes: longer than the `Retry-After` of the old one,
and shorter than the chart's `minReadySeconds`."""


class Rollout(Drill):
    """The drill of `deaths`, with backends that may take their leave."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.replaced = 0
        self._is_over = False

    async def run(self, *, streams: int) -> None:
        """Keep so many streams running until every backend has been replaced."""
        async with (
            self.started(),
            openai.AsyncOpenAI(
                base_url=f"{self.root}/v1", api_key="x", max_retries=0, timeout=120
            ) as client,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(self._replace_each())
            for _ in range(streams):
                group.create_task(self.keep_streaming(client, lambda: not self._is_over))

    async def _replace_each(self) -> None:
        try:
            for backend, root in self.backends.items():
                # What is new has to have begun everywhere.
                await asyncio.sleep(1)
                await backend.end(signal.SIGTERM)
                await backend.start()
                await wait_until(is_up, f"{root}/health")
                await wait_until(all_are_up, f"{self.root}/metrics")
                await asyncio.sleep(READY_SECONDS)
                self.replaced += 1
        finally:
            self._is_over = True

    def report(self) -> bool:
        """Print what came of it; return whether every stream was whole."""
        print(f"{self.replaced} replaced")
        for fate, count in self.fates.most_common():
            print(f"{count:7} {fate[:160]}")
        return self.fates.keys() == {"whole"}


def main() -> int:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.rollout", description=__doc__)
    parser.add_argument("--streams", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="joulegate-rollout-") as folder:
        rollout = Rollout(Path(folder))
        asyncio.run(rollout.run(streams=options.streams))
    return 0 if rollout.report() else 1


if __name__ == "__main__":
    sys.exit(main())
