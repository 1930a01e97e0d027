"""What sums of products cannot be, whatever the requests were; and how a term spells its product.

A term that fell while the count of rows rose, one that stood still while one that needs it moved,
and any that break Cauchy and Schwarz's inequality.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.arrays import Floats
from gateway.utc_time import format_time

_VARIABLES = "weduiozyt"
_SLACK = 1e-9
_STUCK_REQUESTS = 10
_STUCK_SHARE = 0.2
"""Of the requests, for terms of the load: next to a large sum the square of a small load is lost
in the double that a counter is, and the term stands still in earnest."""
_OUTRUN_REQUESTS = 100
_OUTRUN_SCRAPES = 10


@dataclass(frozen=True, slots=True)
class SumFault:
    """Why sums cannot be what they say: the gate's name, the instance, and what was seen."""

    gate: str
    instance: str
    detail: str

    def __str__(self) -> str:
        """Say it in a line."""
        return f"{self.detail} ({self.instance})"


def find_impossible_reset(
    terms: Sequence[str], where: str, shown: Floats, steps: Floats, began: NDArray[np.bool_],
    times: Floats,
) -> list[SumFault]:  # fmt: skip
    """Find a term that fell while n rose: no restart catches up with a long life in one scrape.

    A long life is many times what any one scrape has added.
    """
    n = 0
    usual = float(steps[~began, n].max(initial=0.0))
    long = shown[:-1, n] >= max(_OUTRUN_REQUESTS, _OUTRUN_SCRAPES * usual)
    odd = began & (steps[:, n] >= 0.0) & long
    if not odd.any():
        return []
    at = int(np.argmax(odd))
    term = terms[int(np.argmin(steps[at]))]
    seen = f"term {term} fell at {format_time(times[at + 1])} while n, of {shown[at, n]:g}, did not"
    return [SumFault("fell", where, seen)]


def find_stuck_terms(terms: Sequence[str], where: str, steps: Floats) -> list[SumFault]:
    """Find a term that stood still while another moved that cannot without it."""
    needs = [frozenset(parse_powers(term)) for term in terms]
    moved = steps > 0.0
    requests = np.maximum(steps[:, terms.index("n")], 1.0)
    found = []
    for at, term in enumerate(terms):
        others = [other for other, need in enumerate(needs) if needs[at] <= need]
        stuck = ~moved[:, at] & moved[:, others].any(axis=1)
        count = float(requests[stuck].sum())
        share = _STUCK_SHARE if "z" in term else 0.0
        if count >= max(_STUCK_REQUESTS, share * float(requests.sum())):
            seen = f"term {term} stood still over {count:g} requests while others moved"
            found.append(SumFault("stuck", where, seen))
    return found


def find_impossible_sums(
    terms: Sequence[str], where: str, steps: Floats, blur: Floats
) -> list[SumFault]:
    """Find sums that break Cauchy and Schwarz's inequality: (sum ab)² <= sum a² times sum b²."""
    for term in terms:
        for one, two in _find_square_factors(term, terms):
            ab, a, b = (terms.index(name) for name in (term, one, two))
            least, most = steps[:, ab] ** 2, steps[:, a] * steps[:, b]
            slack = _SLACK * most + 2.0 * steps[:, ab] * blur[:, ab]
            slack += steps[:, a] * blur[:, b] + steps[:, b] * blur[:, a]
            broken = least > most + slack
            if broken.any():
                at = int(np.argmax(broken))
                seen = (
                    f"({term})² is {least[at]:.6g} but {one} x {two} is only {most[at]:.6g} in "
                    "one scrape"
                )
                return [SumFault("impossible", where, seen)]
    return []


def _find_square_factors(term: str, terms: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of squares that bound a term, among those there are.

    A weight is of the row, not of a product: (sum w·a·b)² <= (sum w·a²)(sum w·b²).
    """
    have = parse_powers(term)
    weight = have.pop("w", 0)
    pairs = []
    for one in terms:
        square = parse_powers(one)
        if square.pop("w", 0) != weight:
            continue
        if any(count % 2 for count in square.values()):
            continue
        other = Counter({v: 2 * have[v] - square[v] for v in _VARIABLES})
        if all(count >= 0 and count % 2 == 0 for count in other.values()):
            two = format_term(other + Counter({"w": weight}))
            if two in terms and one < two:
                pairs.append((one, two))
    return pairs


def parse_powers(term: str) -> Counter[str]:
    """Return each variable's power in a term: wi2o is {w: 1, i: 2, o: 1}, n is none."""
    found: Counter[str] = Counter()
    last = ""
    for letter in term.removeprefix("n"):
        if letter.isdigit():
            found[last] = int(letter)
        else:
            found[letter] += 1
        last = letter
    return found


def format_term(found: Counter[str]) -> str:
    """Return the term of those powers; the other way round of `powers`."""
    parts = (f"{v}{found[v] if found[v] > 1 else ''}" for v in _VARIABLES if found[v])
    return "".join(parts) or "n"
