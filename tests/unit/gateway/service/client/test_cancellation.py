"""What can end a request from outside, and that only one thing does."""

import asyncio
import math

import pytest

from gateway.service.client.cancellation import CancelReason, InflightRequests, RequestCancellation


async def for_ever():
    await asyncio.get_running_loop().create_future()


async def served(cut):
    """Serve until cut off by `cut(lifeline)`; return what was absorbed and the task's state."""
    lifelines = []

    async def request():
        lifeline = RequestCancellation()
        lifelines.append(lifeline)
        try:
            await for_ever()
        except asyncio.CancelledError:
            reason = lifeline.consume()
            if reason is None:
                raise
            # What comes after must not be cancelled again.
            await asyncio.sleep(0)
            return reason, asyncio.current_task().cancelling()
        finally:
            lifeline.detach()

    task = asyncio.create_task(request())
    await asyncio.sleep(0)
    cut(lifelines[0], task)
    return await task


@pytest.mark.parametrize("reason", list(CancelReason))
async def test_a_cut_ends_the_request_with_its_reason(reason):
    assert await served(lambda lifeline, _: lifeline.cancel(reason)) == (reason, 0)


async def test_a_stream_may_not_go_on_for_ever():
    def sweep(lifeline, _):
        lifeline.end_within(5.0)
        began = lifeline._until - 5.0
        lifeline.set_deadline(3.0, CancelReason.STALLED)
        lifeline.last = began + 4.9
        lifeline.check_deadline(began + 4.99)
        assert lifeline.reason is None
        lifeline.check_deadline(began + 5.0)

    assert await served(sweep) == (CancelReason.TOO_LONG, 0)


async def test_the_first_reason_stays():
    def both(lifeline, _):
        lifeline.cancel(CancelReason.CLIENT_GONE)
        lifeline.cancel(CancelReason.DRAINING)
        assert lifeline.reason is CancelReason.CLIENT_GONE

    assert await served(both) == (CancelReason.CLIENT_GONE, 0)


async def test_another_cancellation_is_not_absorbed():
    with pytest.raises(asyncio.CancelledError):
        await served(lambda _, task: task.cancel())


async def test_a_request_that_is_over_is_not_cut():
    lifeline = RequestCancellation()
    lifeline.detach()
    lifeline.cancel(CancelReason.CLIENT_GONE)
    await asyncio.sleep(0)
    assert lifeline.reason is None
    assert asyncio.current_task().cancelling() == 0


@pytest.mark.parametrize("expiry", [CancelReason.SILENT, CancelReason.STALLED])
async def test_a_deadline_that_passes_cuts_for_its_reason(expiry):
    def passes(lifeline, _):
        lifeline.set_deadline(30.0, expiry)
        lifeline.check_deadline(lifeline.last + 29.9)
        assert lifeline.reason is None
        lifeline.check_deadline(lifeline.last + 30.0)

    assert await served(passes) == (expiry, 0)


async def test_a_sign_of_life_puts_the_deadline_off():
    lifeline = RequestCancellation()
    lifeline.set_deadline(30.0, CancelReason.STALLED)
    begun = lifeline.last
    lifeline.last = begun + 20.0
    lifeline.check_deadline(begun + 49.9)
    assert lifeline.reason is None
    lifeline.check_deadline(begun + 50.0)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(0)
    assert lifeline.consume() is CancelReason.STALLED


async def test_without_a_deadline_nothing_is_late():
    lifeline = RequestCancellation()
    lifeline.check_deadline(1e12)
    lifeline.set_deadline(1.0, CancelReason.SILENT)
    lifeline.clear_deadline()
    lifeline.check_deadline(1e12)
    assert lifeline.reason is None
    assert asyncio.current_task().cancelling() == 0


async def test_a_request_revived_can_be_cut_again():
    lifeline = RequestCancellation()
    for reason in (CancelReason.SILENT, CancelReason.CLIENT_GONE):
        lifeline.cancel(reason)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(0)
        assert lifeline.consume() is reason
        lifeline.resume()
    assert asyncio.current_task().cancelling() == 0


async def test_all_are_swept_and_those_that_are_over_are_not():
    async def request(alive, seconds):
        lifeline = RequestCancellation()
        alive.add_request(lifeline)
        lifeline.set_deadline(seconds, CancelReason.STALLED)
        try:
            await for_ever()
        except asyncio.CancelledError:
            return lifeline.consume()
        finally:
            alive.remove_request(lifeline)

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
    lifeline = RequestCancellation()
    lifeline.cancel(CancelReason.SILENT)
    lifeline.cancel(CancelReason.CLIENT_GONE)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(0)
    if lifeline.consume() is CancelReason.SILENT:
        # Silence is not the request's end, so another backend would be asked …
        lifeline.resume()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(0)
        assert lifeline.consume() is CancelReason.CLIENT_GONE
    assert lifeline.reason is CancelReason.CLIENT_GONE


async def cancelled(reason):
    """A cancellation of this task that was just caught."""
    lifeline = RequestCancellation()
    lifeline.cancel(reason)
    with pytest.raises(asyncio.CancelledError):
        await for_ever()
    return lifeline


OTHERS = [reason for reason in CancelReason if reason is not CancelReason.SILENT]


async def test_running_to_silent_to_running_when_another_backend_can_be_asked():
    lifeline = await cancelled(CancelReason.SILENT)
    assert lifeline.resume_after_silence()
    await asyncio.sleep(0)
    assert (lifeline.reason, asyncio.current_task().cancelling()) == (None, 0)


@pytest.mark.parametrize("reason", OTHERS)
async def test_silent_to_cancelled_when_something_else_ends_it_meanwhile(reason):
    lifeline = await cancelled(CancelReason.SILENT)
    lifeline.cancel(reason)
    assert lifeline.resume_after_silence()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(0)
    assert (lifeline.consume(), asyncio.current_task().cancelling()) == (reason, 0)


@pytest.mark.parametrize("reason", OTHERS)
async def test_running_to_cancelled_is_not_taken_for_silence(reason):
    lifeline = await cancelled(reason)
    assert not lifeline.resume_after_silence()
    assert lifeline.consume() is reason


@pytest.mark.parametrize("reason", OTHERS)
async def test_cancelled_to_running_while_the_client_is_told(reason):
    lifeline = await cancelled(reason)
    lifeline.consume()
    lifeline.resume()
    await asyncio.sleep(0)
    lifeline.cancel(CancelReason.CLIENT_GONE)
    with pytest.raises(asyncio.CancelledError):
        await for_ever()
    assert lifeline.consume() is CancelReason.CLIENT_GONE


@pytest.mark.parametrize("reason", CancelReason)
async def test_cancelled_to_detached_when_the_request_is_over(reason):
    lifeline = await cancelled(reason)
    lifeline.consume()
    lifeline.detach()
    lifeline.resume()
    lifeline.cancel(CancelReason.DRAINING)
    await asyncio.sleep(0)
    assert lifeline.reason is None


@pytest.mark.parametrize("reason", CancelReason)
async def test_a_client_that_stopped_reading_is_the_cause_whatever_noticed_it(reason):
    lifeline = await cancelled(reason)
    assert lifeline.find_cause(client_blocked=False) is reason
    assert lifeline.consume(client_blocked=True) is CancelReason.CLIENT_GONE


async def test_a_cancellation_of_unknown_cause_stays_unknown_though_the_client_is_blocked():
    assert RequestCancellation().find_cause(client_blocked=True) is None
