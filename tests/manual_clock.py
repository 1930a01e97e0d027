"""A clock for code that is given one."""


class ManualClock:
    """Time that stands until it is moved; seconds."""

    def __init__(self, now=0.0):
        self.now = now

    def __call__(self):
        return self.now

    def pass_seconds(self, seconds):
        self.now += seconds
