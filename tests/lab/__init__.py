"""A fleet on a virtual clock: engines, placement, meters and ledgers without sockets or waiting.

The simulator's engines (whose truth is the physical step model) serve a schedule of arrivals; a
callback places each; GPUs' counters move as NVML's do; a gateway's events and vLLM's token counters
go to the real ledger. What each request truly cost and what it was charged stand side by side.
The same seed gives the same run, whatever the machine; a second of life takes about a millisecond.

    from tests.lab import H100, Lab, LabBackend, Meter, poisson, step_profile

    truth = H100                                   # Qwen3-14B on an H100, measured parts
    lab = Lab([LabBackend("b0", truth, cost=step_profile(truth))], seed=1)
    run = lab.run(poisson(rate=8.0, seconds=300.0, seed=1))
    run.median_error(), run.p95_error()            # charged against true joules
    run.counters["gpu"].other_microjoules          # requests + other + idle = the counter, exactly

Several backends on one GPU: give them one `gpu`. Several replicas: one `gpu` each. Placement, and
with it decisions, policies and switchback arms:

    def place(arrival, loads):                     # loads: {name: Load(running, waiting)}
        return Placed(min(loads, key=lambda name: loads[name].running))

    run = Lab(replicas, place=place).run(arrivals)

Placement by the product's own candidates, places and reference load, with stale gauges and several
gateways, is in tests/lab/gateways.py; packing's figures are measured by tests/lab/packing.py.

A choice of model may bring its own answer length: Placed("small", tokens_out=80). tests/lab/
deciding.py places by gateway.scheduling, tests/lab/scenarios.py holds the kinds of traffic that
docs/energy.md is made of. With `Meter(off=True)` only the truth is kept, faster. Twin runs, for the
counters' difference and what the class was charged:

    both = twins(lab_of, arrivals, lambda arrival: arrival.tag == "batch")
    both.saved_joules, both.charged_joules
"""

from tests.lab.costs import H100, H100_8B, LONG_CONTEXT, fitted_profile, step_profile
from tests.lab.lab import Lab, LabBackend, Load, Placed
from tests.lab.metering import Meter
from tests.lab.results import LabRequest, LabRun
from tests.lab.schedule import Arrival, bursts, poisson
from tests.lab.twins import Twins, twins

__all__ = (
    "H100",
    "H100_8B",
    "LONG_CONTEXT",
    "Arrival",
    "Lab",
    "LabBackend",
    "LabRequest",
    "LabRun",
    "Load",
    "Meter",
    "Placed",
    "Twins",
    "bursts",
    "fitted_profile",
    "poisson",
    "step_profile",
    "twins",
)
