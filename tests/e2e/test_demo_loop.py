"""`joulegate demo --loop`, as somebody who has just installed it runs it: it says what it found."""

import asyncio
import re
import time

from tests.integration.process import joulegate


async def test_the_circle_closes_in_under_two_minutes():
    began = time.monotonic()
    async with joulegate("demo", "--loop", "--port", 0, stdout=asyncio.subprocess.PIPE) as process:
        printed = (await process._process.stdout.read()).decode()
        code = await process.ended()
    assert code == 0, printed + "\n".join(process.lines)
    assert time.monotonic() - began < 120
    assert not process.said("Traceback|Warning")
    assert printed.count("joulegate recalibrate --window") == 3
    assert printed.count("wrote ") == 3
    moved = re.findall(r"requests that care for (\w+) go to mistral-7b: (\d+)%", printed)
    assert [stream for stream, _ in moved] == ["time", "energy"]
    assert all(int(share) > 50 for _, share in moved)
    assert re.search(r"\d+ requests, 0 of them failed", printed)
