"""A file of API keys for a test's gateway."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from gateway.keys_config import KeysConfig
from gateway.keys_file import KeyEntry, KeysFile, make_key, write_keys
from tests.e2e.processes import free_port
from tests.integration.harness import until


@dataclass
class KeyRing:
    """The file, and every key that was put into it."""

    path: Path

    def __post_init__(self):
        self.entries: list[KeyEntry] = []
        self.write()

    def add(self, tenant, **permissions):
        """A new key; returns the headers that carry it."""
        key, entry = make_key(tenant, **permissions)
        self.entries.append(entry)
        self.write()
        return {"authorization": f"Bearer {key}"}

    def write(self):
        write_keys(self.path, KeysFile(tuple(self.entries)))

    def config(self, **fields):
        return KeysConfig(str(self.path), **fields)


async def known(gate, headers):
    """Wait until the file of keys has been read again."""

    async def listed():
        return (await gate.get("/v1/models", headers)).status == 200

    await until(listed, "a key to be in force")
    return headers


class RunningRedis:
    """Debian's redis-server on a free port of its own, in memory alone."""

    def __init__(self, process, port):
        self.process = process
        self.url = f"redis://127.0.0.1:{port}/0"

    @classmethod
    async def start(cls, port=0):
        port = port or free_port()
        process = await asyncio.create_subprocess_exec(
            "redis-server", "--port", str(port), "--save", "", "--appendonly", "no",
            "--bind", "127.0.0.1", stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        running = cls(process, port)

        async def answers():
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return False
            writer.close()
            return True

        await until(answers, "redis-server")
        return running

    async def stop(self):
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
