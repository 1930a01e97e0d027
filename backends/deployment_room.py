"""How many requests may be at a deployment at once, where that is bounded."""

from collections.abc import Callable


class DeploymentRoom:
    """Counts one process's requests at a deployment against `most`.

    A place that was `promised` to somebody who waits is nobody else's; `on_free` is called when one
    becomes free.
    """

    __slots__ = ("most", "on_free", "promised", "running")

    def __init__(self, most: int) -> None:
        self.most = most
        self.running = 0
        self.promised = 0
        self.on_free: Callable[[], None] | None = None

    @property
    def is_full(self) -> bool:
        """Whether nobody may enter now."""
        return self.running + self.promised >= self.most

    def enter(self) -> None:
        """Count a request in."""
        self.running += 1

    def leave(self) -> None:
        """Count a request out."""
        self.running -= 1
        if self.on_free is not None:
            self.on_free()
