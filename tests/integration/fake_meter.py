"""A meter that does what a test scripts and keeps every batch that it is sent."""

from aiohttp import web

from backends.meter.protocol import EVENTS_PATH


class FakeMeter:
    """`answer(batch)` returns a response, or None for the proper one."""

    def __init__(self, answer=None):
        self.batches = []
        self.answer = answer or observing()
        self.url = ""
        self._runner: web.AppRunner

    @property
    def events(self):
        """All events so far, as lists."""
        return [event for batch in self.batches for event in batch["events"]]

    def ends(self):
        return [event for event in self.events if event[0] == "e"]

    async def __aenter__(self):
        app = web.Application(client_max_size=1 << 20)
        app.router.add_post(EVENTS_PATH, self._take)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()

    async def _take(self, request):
        batch = await request.json()
        self.batches.append(batch)
        answer = self.answer(batch)
        return await answer if hasattr(answer, "__await__") else answer


def answer(observations=(), spendings=(), meter="fake", **fields):
    """An answer as a meter gives it."""
    body = {"meter": meter, "observations": observations, "spendings": spendings} | fields
    return web.json_response(body)


def observing(microjoules=7_000_000, method="exclusive"):
    """Observe every request as soon as its end is told, and repeat that until it is received."""
    told = []

    def observe(batch):
        for event in batch["events"]:
            if event[0] == "e":
                told.append([len(told) + 1, event[1], microjoules, method])
        return answer([one for one in told if one[0] > batch["received"]])

    return observe
