"""One whole answer's products, added to the sums of its deployment.

The units in which each term is kept are whole: tokens, microseconds, microjoules, 1e-6 requests of
load, 1e-9 of a shared token or a logarithm, and 1e-15 of a weight.
"""

from math import isfinite, log

from msgspec import Struct

from gateway.scheduling.cost import COST_FLOOR
from gateway.scheduling.regression_terms import (
    COSTS,
    LIMIT_OCTAVES,
    METERED,
    ORDINARY,
    OUTPUT,
    PROMPT,
    ROWS,
    TERMS,
    WINSOR,
    WeighedPrediction,
)

# One row of these makes a float of the sum too coarse for every other; no model does them.
_MOST_TOKENS = 10_000_000
_MOST_MICROSECONDS = 86_400 * 10**6
_MOST_MICROJOULES = 10**15
_MICRO = 10**6
_NANO = 10**9
_WEIGHT_UNIT = 10**15
_LARGEST_WEIGHT = _WEIGHT_UNIT * _MICRO
_LAST_OCTAVE = LIMIT_OCTAVES - 1

Parts = tuple[list[int], ...]
"""Of one deployment, in the order of `PARTS`."""
PARTS = (
    (COSTS, "seconds"),
    (COSTS, "joules"),
    (ROWS, "seconds"),
    (ROWS, "joules"),
    (METERED, "joules"),
    (OUTPUT, "tokens"),
    (PROMPT, "tokens"),
)
LAYOUT = "|".join(f"{basis} {quantity} {' '.join(TERMS[basis])}" for basis, quantity in PARTS)


class SumsRow(Struct, frozen=True):
    """One whole answer, as its sums see it.

    `tokens_in`, `cached_tokens` and `tokens_out` are the backend's counts, `estimated_tokens` our
    own of the prompt, None where there is none, and `dense_chars` the digits and marks in it;
    `running` is the mean number of other requests there, `harmonic_running` the harmonic mean of
    all that were there, less 1; `microjoules` is None where they were not measured for it alone;
    `truncated` where a limit ended the answer. `seconds` and `joules` are what the live profile
    says of it.
    """

    tokens_in: int
    tokens_out: int
    cached_tokens: int
    running: float
    microseconds: int
    microjoules: int | None
    estimated_tokens: int | None
    truncated: bool
    seconds: WeighedPrediction
    joules: WeighedPrediction
    harmonic_running: float
    dense_chars: int = 0

    @property
    def is_plausible(self) -> bool:
        """Whether it can be: neither negative nor beyond any model."""
        return (
            0 <= self.cached_tokens <= self.tokens_in <= _MOST_TOKENS
            and 0 <= self.tokens_out <= _MOST_TOKENS
            and 0 <= self.running <= _MOST_TOKENS
            and 0 <= self.harmonic_running <= _MOST_TOKENS
            and 0 <= self.microseconds <= _MOST_MICROSECONDS
            and (self.microjoules is None or 0 <= self.microjoules <= _MOST_MICROJOULES)
            and (self.estimated_tokens is None or 0 <= self.estimated_tokens <= _MOST_TOKENS)
            and 0 <= self.dense_chars <= _MOST_TOKENS
            and isfinite(self.seconds.value)
            and isfinite(self.joules.value)
        )


def _unit(basis: str, quantity: str, term: str) -> int:
    """Return how many of the units in which a term is kept make a base unit."""
    if basis == ROWS:
        return 1
    if basis == OUTPUT:
        return _NANO**2 if term == "l2" else _NANO if term.endswith("l") else 1
    digits: dict[str, int] = {
        "w": 15,
        "y": 6,
        "t": 6,
        "p": 6,
        "s": 6,
        "z": 6 if quantity == "seconds" else 9,
    }
    power = sum(
        count * (2 if f"{letter}2" in term else term.count(letter))
        for letter, count in digits.items()
    )
    return int(10**power)


UNITS = tuple(tuple(_unit(*part, term) for term in TERMS[part[0]]) for part in PARTS)


def make_zero_sums() -> Parts:
    """Return the sums of no rows."""
    return tuple([0] * len(TERMS[basis]) for basis, _ in PARTS)


def add_row(parts: Parts, row: SumsRow) -> None:
    """Enter one row into every part that it belongs to."""
    seconds, joules, of_seconds, of_joules, metered, output, prompt = parts
    z = row.tokens_out * round(row.running * _MICRO)
    _add_cost(seconds, of_seconds, row, z, row.microseconds, row.seconds)
    if row.microjoules is not None:
        shares = _MICRO + round(row.harmonic_running * _MICRO)
        z = (2 * _NANO * _MICRO * row.tokens_out + shares) // (2 * shares)
        _add_cost(joules, of_joules, row, z, row.microjoules, row.joules)
    _add_metered(metered, row)
    _add_output(output, row)
    if row.estimated_tokens is not None:
        _add_prompt(prompt, row.estimated_tokens, row.tokens_in, row.dense_chars)


def _add_cost(
    sums: list[int], counts: list[int], row: SumsRow, z: int, y: int, expected: WeighedPrediction
) -> None:
    """Add a row's products where its prediction can weigh it."""
    counts[0] += 1
    if expected.floored:
        counts[1] += 1
        return
    p = round(expected.value * _MICRO)
    low, high = p // WINSOR, WINSOR * p
    if y < low:
        counts[2] += 1
        y = low
    elif y > high:
        counts[3] += 1
        y = high
    third = p // ORDINARY
    t = max(-third, min(third, y - p))
    weight = expected.weighed
    w = min(_LARGEST_WEIGHT, round(_WEIGHT_UNIT / (weight * weight)))
    _add_products(sums, row, z, y, t, w)


def _add_products(sums: list[int], row: SumsRow, z: int, y: int, t: int, w: int) -> None:
    """Add a row's products, in the order of COST_TERMS."""
    i, o = row.tokens_in, row.tokens_out
    u = i - row.cached_tokens
    io, o2 = i * o, o * o
    wu, wo, wio, wo2, wz = w * u, w * o, w * io, w * o2, w * z
    sums[0] += 1
    sums[1] += u
    sums[2] += o
    sums[3] += io
    sums[4] += o2
    sums[5] += z
    sums[6] += y
    sums[7] += w
    sums[8] += wu
    sums[9] += wo
    sums[10] += wio
    sums[11] += wo2
    sums[12] += wz
    sums[13] += wu * u
    sums[14] += wu * o
    sums[15] += wu * io
    sums[16] += wu * o2
    sums[17] += wu * z
    sums[18] += wo * io
    sums[19] += wo * o2
    sums[20] += wo * z
    sums[21] += wio * io
    sums[22] += wio * o2
    sums[23] += wio * z
    sums[24] += wo2 * o2
    sums[25] += wo2 * z
    sums[26] += wz * z
    sums[27] += w * y
    sums[28] += wu * y
    sums[29] += wo * y
    sums[30] += wio * y
    sums[31] += wo2 * y
    sums[32] += wz * y
    sums[33] += w * y * y
    sums[34] += w * t
    sums[35] += wu * t
    sums[36] += wo * t
    sums[37] += wio * t
    sums[38] += wo2 * t
    sums[39] += wz * t


def _add_metered(sums: list[int], row: SumsRow) -> None:
    """Count a row, and again where its joules were measured: what is missing must be no choice."""
    predicted = round(max(row.joules.value, COST_FLOOR) * _MICRO)
    measured = row.microjoules is not None
    for at, value in enumerate((1, predicted, row.microseconds)):
        sums[at] += value
        if measured:
            sums[at + 3] += value


def _add_output(sums: list[int], row: SumsRow) -> None:
    """Add an answer's length; a cut one is only known to have at least so many tokens."""
    if row.tokens_out < 1:
        return
    length = round(log(row.tokens_out) * _NANO)
    if not row.truncated:
        sums[0] += 1
        sums[1] += length
        sums[2] += length * length
        return
    octave = min(_LAST_OCTAVE, row.tokens_out.bit_length() - 1)
    sums[3 + octave] += 1
    sums[3 + LIMIT_OCTAVES + octave] += length


def _add_prompt(sums: list[int], e: int, i: int, d: int) -> None:
    """Add a prompt's products, in the order of PROMPT_TERMS."""
    sums[0] += 1
    sums[1] += e
    sums[2] += i
    sums[3] += e * i
    sums[4] += e * e
    sums[5] += i * i
    sums[6] += d
    sums[7] += e * d
    sums[8] += d * d
    sums[9] += d * i
