"""What can end a request from outside, and that only one thing does."""

import asyncio
import contextlib
import math

import pytest

from gateway.service.client import cancellation as cancellation_module
from gateway.service.client.cancellation import CancelReason, InflightRequests, RequestCancellation


async def for_ever():
    await asyncio.get_running_loop().create_future()


async def served(cancel):
    """Serve until `cancel(cancellation)`; return what was consumed and the task's state."""
    cancellations = []

    async def request():
        cancellation = RequestCancellation()
        cancellations.append(cancellation)
        try:
            await for_ever()
        except asyncio.CancelledError:
            reason = cancellation.consume()
            if reason is None:
                raise
            # What comes after must not be cancelled again.
            await asyncio.sleep(0)
            return reason, asyncio.current_task().cancelling()
        finally:
            cancellation.detach()

    task = asyncio.create_task(request())
    await asyncio.sleep(0)
    cancel(cancellations[0], task)
    return await task


@pytest.mark.parametrize("reason", list(CancelReason))
async def test_cancelling_ends_the_request_with_its_reason(reason):
    assert await served(lambda cancellation, _: cancellation.cancel(reason)) == (reason, 0)


async def test_a_stream_may_not_go_on_for_ever():
    def sweep(cancellation, _):
        cancellation.end_within(5.0)
        began = cancellation._until - 5.0
        cancellation.set_deadline(3.0, CancelReason.STALLED)
        cancellation.last = began + 4.9
        cancellation.check_deadline(began + 4.99)
        assert cancellation.reason is None
        cancellation.check_deadline(began + 5.0)

    assert await served(sweep) == (CancelReason.TOO_LONG, 0)


async def test_the_first_reason_stays():
    def both(cancellation, _):
        cancellation.cancel(CancelReason.CLIENT_GONE)
        cancellation.cancel(CancelReason.DRAINING)
        assert cancellation.reason is CancelReason.CLIENT_GONE

    assert await served(both) == (CancelReason.CLIENT_GONE, 0)


async def test_another_cancellation_is_not_consumed():
    with pytest.raises(asyncio.CancelledError):
        await served(lambda _, task: task.cancel())


async def test_running_to_detached_when_the_request_is_over_and_nothing_cancels_it():
    cancellation = RequestCancellation()
    cancellation.detach()
    cancellation.cancel(CancelReason.CLIENT_GONE)
    await asyncio.sleep(0)
    assert cancellation.reason is None
    assert asyncio.current_task().cancelling() == 0


@pytest.mark.parametrize("expiry", [CancelReason.SILENT, CancelReason.STALLED])
async def test_a_deadline_that_passes_cancels_for_its_reason(expiry):
    def passes(cancellation, _):
        cancellation.set_deadline(30.0, expiry)
        cancellation.check_deadline(cancellation.last + 29.9)
        assert cancellation.reason is None
        cancellation.check_deadline(cancellation.last + 30.0)

    assert await served(passes) == (expiry, 0)


async def test_a_late_look_gives_who_waits_one_more_unless_it_was_silent_far_too_long():
    def look_late(cancellation, _):
        cancellation.set_deadline(30.0, CancelReason.STALLED)
        cancellation.check_deadline(cancellation.last + 119.9, late=True)
        assert cancellation.reason is None
        cancellation.check_deadline(cancellation.last + 120.0, late=True)

    assert await served(look_late) == (CancelReason.STALLED, 0)


async def test_a_loop_that_was_held_up_cancels_nobody_at_its_first_look(monkeypatch):
    now = 100.0
    monkeypatch.setattr(cancellation_module.time, "monotonic", lambda: now)
    alive = InflightRequests()
    cancellation = RequestCancellation()
    alive.add_request(cancellation)
    cancellation.set_deadline(2.0, CancelReason.STALLED)
    now += 3.0  # nothing ran
    alive.check_deadlines()
    assert cancellation.reason is None
    now += 0.1  # what had come meanwhile would have been read by now
    alive.check_deadlines()
    assert cancellation.reason is CancelReason.STALLED
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    assert cancellation.consume() is CancelReason.STALLED
    alive.remove_request(cancellation)


async def test_a_sign_of_life_puts_the_deadline_off():
    cancellation = RequestCancellation()
    cancellation.set_deadline(30.0, CancelReason.STALLED)
    begun = cancellation.last
    cancellation.last = begun + 20.0
    cancellation.check_deadline(begun + 49.9)
    assert cancellation.reason is None
    cancellation.check_deadline(begun + 50.0)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(0)
    assert cancellation.consume() is CancelReason.STALLED


async def test_without_a_deadline_nothing_is_late():
    cancellation = RequestCancellation()
    cancellation.check_deadline(1e12)
    cancellation.set_deadline(1.0, CancelReason.SILENT)
    cancellation.clear_deadline()
    cancellation.check_deadline(1e12)
    assert cancellation.reason is None
    assert asyncio.current_task().cancelling() == 0


async def test_a_request_that_resumed_can_be_cancelled_again():
    cancellation = RequestCancellation()
    for reason in (CancelReason.SILENT, CancelReason.CLIENT_GONE):
        cancellation.cancel(reason)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(0)
        assert cancellation.consume() is reason
        cancellation.resume()
    assert asyncio.current_task().cancelling() == 0


async def test_all_are_swept_and_those_that_are_over_are_not():
    async def request(alive, seconds):
        cancellation = RequestCancellation()
        alive.add_request(cancellation)
        cancellation.set_deadline(seconds, CancelReason.STALLED)
        try:
            await for_ever()
        except asyncio.CancelledError:
            return cancellation.consume()
        finally:
            alive.remove_request(cancellation)

    alive = InflightRequests()
    late = [asyncio.create_task(request(alive, 0.0)) for _ in range(3)]
    early = [asyncio.create_task(request(alive, math.inf)) for _ in range(2)]
    await asyncio.sleep(0)
    alive.check_deadlines()
    assert await asyncio.gather(*late) == [CancelReason.STALLED] * 3
    assert not any(task.done() for task in early)
    alive.cancel_all(CancelReason.DRAINING)
    alive.check_deadlines()
    assert await asyncio.gather(*early) == [CancelReason.DRAINING] * 2
    alive.cancel_all(CancelReason.CLIENT_GONE)
    assert asyncio.current_task().cancelling() == 0


async def test_a_client_that_leaves_is_not_forgotten_over_a_silent_backend():
    # The same turn of the loop: the backend's deadline first, then the client.
    cancellation = RequestCancellation()
    cancellation.cancel(CancelReason.SILENT)
    cancellation.cancel(CancelReason.CLIENT_GONE)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(0)
    if cancellation.consume() is CancelReason.SILENT:
        # Silence is not the request's end, so another backend would be asked …
        cancellation.resume()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(0)
        assert cancellation.consume() is CancelReason.CLIENT_GONE
    assert cancellation.reason is CancelReason.CLIENT_GONE


async def cancelled(reason):
    """A cancellation of this task that was just caught."""
    cancellation = RequestCancellation()
    cancellation.cancel(reason)
    with pytest.raises(asyncio.CancelledError):
        await for_ever()
    return cancellation


OTHERS = [reason for reason in CancelReason if reason is not CancelReason.SILENT]


async def test_running_to_silent_to_running_when_another_backend_can_be_asked():
    cancellation = await cancelled(CancelReason.SILENT)
    assert cancellation.resume_after_silence()
    await asyncio.sleep(0)
    assert (cancellation.reason, asyncio.current_task().cancelling()) == (None, 0)


@pytest.mark.parametrize("reason", OTHERS)
async def test_silent_to_cancelled_when_something_else_ends_it_meanwhile(reason):
    cancellation = await cancelled(CancelReason.SILENT)
    cancellation.cancel(reason)
    assert cancellation.resume_after_silence()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(0)
    assert (cancellation.consume(), asyncio.current_task().cancelling()) == (reason, 0)


@pytest.mark.parametrize("reason", OTHERS)
async def test_running_to_cancelled_is_not_taken_for_silence(reason):
    cancellation = await cancelled(reason)
    assert not cancellation.resume_after_silence()
    assert cancellation.consume() is reason


@pytest.mark.parametrize("reason", OTHERS)
async def test_cancelled_to_running_while_the_client_is_told(reason):
    cancellation = await cancelled(reason)
    cancellation.consume()
    cancellation.resume()
    await asyncio.sleep(0)
    cancellation.cancel(CancelReason.CLIENT_GONE)
    with pytest.raises(asyncio.CancelledError):
        await for_ever()
    assert cancellation.consume() is CancelReason.CLIENT_GONE


@pytest.mark.parametrize("reason", CancelReason)
async def test_cancelled_to_detached_when_the_request_is_over(reason):
    cancellation = await cancelled(reason)
    cancellation.consume()
    cancellation.detach()
    cancellation.resume()
    cancellation.cancel(CancelReason.DRAINING)
    await asyncio.sleep(0)
    assert cancellation.reason is None


@pytest.mark.parametrize("reason", CancelReason)
async def test_a_client_that_stopped_reading_is_the_cause_whatever_noticed_it(reason):
    cancellation = await cancelled(reason)
    assert cancellation.find_cause(client_blocked=False) is reason
    assert cancellation.consume(client_blocked=True) is CancelReason.CLIENT_GONE


async def test_a_cancellation_of_unknown_cause_stays_unknown_though_the_client_is_blocked():
    assert RequestCancellation().find_cause(client_blocked=True) is None
