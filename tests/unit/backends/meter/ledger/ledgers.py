"""A ledger and what is done to it, in few words."""

from backends.meter.ledger.ledger import EnergyLedger

S = 1_000_000
FAR = 100_000 * S


def started(**options) -> EnergyLedger:
    ledger = EnergyLedger("gpu", **options)
    ledger.start_counter(0)
    return ledger


def ticks(ledger, until_us, microjoules, *, step_us=S):
    """Advance by so much each step, from where the counter stands."""
    for at_us in range(max(0, ledger._at_us) + step_us, until_us + 1, step_us):
        ledger.advance(at_us, microjoules)


def begin(ledger, n, at_us, *, prompt=0, prefill=0, backend="b", gateway="g", may_change=False):
    ledger.begin((gateway, n), at_us, backend, prompt, prefill, may_change)


def progress(ledger, n, at_us, tokens):
    ledger.progress(("g", n), at_us, tokens)


def end(ledger, n, at_us, tokens, **said):
    ledger.end(("g", n), at_us, tokens, **said)


def microjoules(settled) -> dict[int, int]:
    return {one.key[1]: one.microjoules for one in settled}


def methods(settled) -> dict[int, str]:
    return {one.key[1]: one.method for one in settled}
