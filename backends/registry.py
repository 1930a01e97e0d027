"""The backends there are: which serve which model, and which one to ask.

Rules: health and load belong to an address, which may serve several models (LoRA adapters, several
served names); a model that an address says it does not have belongs to the two of them.
"""

import random
from collections.abc import Iterable, Sequence

from backends.backend import Backend
from backends.circuit_breaker import CircuitBreaker, EjectionPolicy
from backends.deployment_room import DeploymentRoom

__all__ = ["Backend", "Deployment", "EjectionPolicy", "group_backends", "list_backends"]


class Deployment:
    """One model on one kind of hardware: its backends and what they call the model."""

    __slots__ = ("_missing", "_random", "backends", "label", "model", "room", "served_name")

    def __init__(
        self,
        model: str,
        label: str,
        served_name: str,
        backends: Sequence[Backend],
        *,
        rng: random.Random,
    ) -> None:
        self.model = model
        self.label = label
        self.served_name = served_name
        self.backends = tuple(backends)
        self.room: DeploymentRoom | None = None
        """What bounds the requests at it; None: nothing does."""
        self._random = rng
        self._missing: dict[Backend, CircuitBreaker] = {}

    def take_over(self, earlier: "Deployment") -> None:
        """Go on from what an earlier configuration's deployment knew of the same model."""
        if self.room is not None and earlier.room is not None:
            earlier.room.most = self.room.most
            self.room = earlier.room
        if earlier.served_name == self.served_name:
            self._missing = earlier._missing  # noqa: SLF001 - a deployment's own

    @property
    def is_full(self) -> bool:
        """Whether as many requests are at it as may be."""
        return self.room is not None and self.room.is_full

    def find(self, label: str) -> Backend | None:
        """Return the backend of this label; None where it is no longer one."""
        return next((backend for backend in self.backends if backend.label == label), None)

    def record_missing(self, backend: Backend) -> None:
        """Note that a backend says that it does not have this model (a 404)."""
        missing = self._missing.get(backend)
        if missing is None:
            missing = self._missing[backend] = backend.make_model_breaker(self.model)
        missing.record_failure(f"it has no model {self.served_name!r}", answered=True)

    def record_found(self, backend: Backend) -> None:
        """Note that a backend does have this model."""
        if self._missing:
            self._missing.pop(backend, None)

    def begin_request(self, backend: Backend) -> int:
        """Count a request in at a backend; return what `end_request` takes as its trial."""
        if self.room is not None:
            self.room.enter()
        return backend.begin_request()

    def end_request(self, backend: Backend, trial: int) -> None:
        """Count a request out at a backend, whatever its outcome."""
        backend.end_request(trial=trial)
        if self.room is not None:
            self.room.leave()

    def begin_trial(self, backend: Backend) -> int:
        """Let a request through; return what `end_trial` takes.

        That is 0, or the number of the one trial of a model that the backend is said not to have.
        """
        missing = self._missing.get(backend) if self._missing else None
        return 0 if missing is None else missing.begin_trial()

    def end_trial(self, backend: Backend, trial: int) -> None:
        """Note that a request has its answer, or never will."""
        missing = self._missing.get(backend) if trial else None
        if missing is not None:
            missing.end_trial(trial)

    def is_served_by(self, backend: Backend) -> bool:
        """Tell whether a backend is in use, and has this model as far as is known."""
        missing = self._missing.get(backend)
        return backend.is_in_use and (missing is None or not missing.is_ejected)

    def can_ask(self, backend: Backend, *, last_resort: bool = False) -> bool:
        """Tell whether a backend may be asked for this model now.

        `last_resort`: because no other backend can be asked.
        """
        if self.room is not None and self.room.is_full:
            return False
        if last_resort:
            return backend.is_available or backend.is_last_resort
        if not backend.is_available:
            return False
        missing = self._missing.get(backend) if self._missing else None
        return missing is None or missing.is_closed

    def pick_backend(
        self, tried: Iterable[Backend] = (), *, last_resort: bool = False
    ) -> Backend | None:
        """Choose the less busy of two usable backends drawn at random; None where none is left."""
        if len(self.backends) == 1:
            only = self.backends[0]
            can = self.can_ask(only, last_resort=last_resort)
            return only if can and only not in tried else None
        usable = [
            b for b in self.backends if b not in tried and self.can_ask(b, last_resort=last_resort)
        ]
        if len(usable) > 2:  # noqa: PLR2004 - the power of two choices
            usable = self._random.sample(usable, 2)
        elif not usable:
            return None
        if len(usable) == 1:
            return usable[0]
        first, second = usable
        busy, busier = sum(first.running_and_queued), sum(second.running_and_queued)
        if busy == busier:
            return usable[self._random.getrandbits(1)]
        return first if busy < busier else second


def list_backends(deployments: Iterable[Deployment]) -> list[Backend]:
    """Return every backend once, in the config's order."""
    return list(dict.fromkeys(b for deployment in deployments for b in deployment.backends))


def group_backends(deployments: Sequence[Deployment]) -> None:
    """Tell every backend who else serves its models."""
    for backend in list_backends(deployments):
        models = dict.fromkeys(d.model for d in deployments if backend in d.backends)
        backend.groups = tuple(
            tuple(list_backends(d for d in deployments if d.model == model)) for model in models
        )
        backend.has_peers = any(len(group) > 1 for group in backend.groups)
