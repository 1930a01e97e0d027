"""Whether predictions still hold: errors per model, and a test for a change of their bias.

Rules of this file:

- Bias is a ratio of two sums, so both are counters; an average made here could not be windowed.
- The test for a change is Page and Hinkley's, on ln(observed/predicted): twice as slow and twice
  as fast weigh the same, and so do a short answer and a long one. It tells a change from what was
  usual since the last reset, not an error that was always there: that shows in the bias.
- Joules have a mean per class of load: a profile that knows nothing of company is too high by
  another share at each, and a busier hour is no change of behaviour. Seconds and tokens have one
  mean for all: what becomes slower is itself what raises the load, and would be excused by it.
- Each worker tests what it served itself; the score shown is the highest among those that live.
"""

from collections.abc import Iterable
from itertools import product
from math import inf, log

from prometheus_client import CollectorRegistry, Counter, Gauge

SECONDS = "seconds"
JOULES = "joules"
OUTPUT_TOKENS = "output_tokens"
QUANTITIES = (SECONDS, JOULES, OUTPUT_TOKENS)
LIVE = "live"
SHADOW = "shadow"
PROFILES = (LIVE, SHADOW)

_UNITS = {SECONDS: "seconds", JOULES: "joules", OUTPUT_TOKENS: "tokens"}
_DECAY = 0.9999
# Tolerated shift of the log ratio, and the sum above it that is an alarm. The length of an answer
# is hardly predictable (R2 0.13 for the published line), so its test has to be the more patient.
_SETTINGS = {SECONDS: (0.05, 25.0), JOULES: (0.05, 25.0), OUTPUT_TOKENS: (0.1, 60.0)}


_CLASSES_PER_E = 5.0
_MOST_CLASSES = 35


class PageHinkley:
    """A two-sided sequential test for a change of a mean.

    E. S. Page, "Continuous inspection schemes", Biometrika 41, 1954, with the mean estimated on
    the way, as D. V. Hinkley, "Inference about the change-point from cumulative sum tests",
    Biometrika 58, 1971. With m the mean so far of the values of x's class, the sum of
    x - m - `delta`, less the lowest it has been, is how much has been seen of a rise; of a fall
    likewise. Either above `threshold` is an
    alarm, after which the test begins anew. `decay` (at most 1) multiplies both at each step, so
    that what is long past is forgotten.
    """

    __slots__ = ("_means", "decay", "delta", "fall", "rise", "threshold")

    def __init__(self, delta: float, threshold: float, decay: float = 1.0) -> None:
        if not (delta >= 0 and threshold > 0 and 0 < decay <= 1):
            raise ValueError(f"no test: delta {delta}, threshold {threshold}, decay {decay}")
        self.delta = delta
        self.threshold = threshold
        self.decay = decay
        self.reset_test()

    def reset_test(self) -> None:
        """Forget everything seen."""
        self._means: dict[int, tuple[int, float]] = {}
        self.rise = 0.0
        self.fall = 0.0

    @property
    def score(self) -> float:
        """The larger of what has been seen of a rise and of a fall; 0 when neither."""
        return max(self.rise, self.fall)

    def add_value(self, x: float, of_class: int = 0) -> bool:
        """Take a value of a class; return whether it made an alarm, which resets the test."""
        count, mean = self._means.get(of_class, (0, 0.0))
        count += 1
        mean += (x - mean) / count
        self._means[of_class] = (count, mean)
        beyond = x - mean
        # A sum less its lowest so far is the sum that is never let below 0.
        self.rise = max(0.0, self.rise * self.decay + beyond - self.delta)
        self.fall = max(0.0, self.fall * self.decay - beyond - self.delta)
        if self.rise <= self.threshold and self.fall <= self.threshold:
            return False
        self.reset_test()
        return True


class DriftMetrics:
    """The `joulegate_prediction_*` metrics; every model has all of its series from the start."""

    def __init__(self, registry: CollectorRegistry, models: tuple[str, ...]) -> None:
        def make_counter(
            name: str, text: str, labels: tuple[str, ...] = ("model", "quantity", "profile")
        ) -> Counter:
            return Counter(f"joulegate_prediction_{name}", text, labels, registry=registry)

        def make_sums(name: str, text: str) -> dict[str, Counter]:
            return {
                quantity: make_counter(
                    f"{name}_{unit}_total", text.format(unit=unit), ("model", "profile")
                )
                for quantity, unit in _UNITS.items()
            }

        self.requests = make_counter(
            "requests_total", "Predictions compared with what was observed"
        )
        self.predicted = make_sums("predicted", "Sum of the {unit} that were predicted")
        self.observed = make_sums("observed", "Sum of the {unit} observed of the same requests")
        self.error = make_sums(
            "absolute_error", "Sum of the absolute differences of predicted and observed {unit}"
        )
        self.score = Gauge(
            "joulegate_prediction_drift_score",
            "Page-Hinkley statistic of ln(observed/predicted) since the last alarm or profile, "
            "0 when none",
            ("model", "quantity", "profile"),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.alarms = make_counter(
            "drift_alarms_total", "Times the statistic went beyond its threshold and began anew"
        )
        self._watches: dict[tuple[str, str, str], _DriftSeries] = {}
        self.add_models(models)
        self._touched: set[_DriftSeries] = set()

    def add_models(self, models: Iterable[str]) -> None:
        """Watch these too; those that are watched go on."""
        for name in product(models, PROFILES, QUANTITIES):
            if name not in self._watches:
                model, profile, quantity = name
                self._watches[name] = _DriftSeries(self, model, quantity, profile)

    def add_comparison(
        self,
        model: str,
        profile: str,
        quantity: str,
        predicted: float,
        observed: float,
        running: float = 0.0,
    ) -> None:
        """Compare a prediction with what came, both in the quantity's unit; see `publish_metrics`.

        `running` is the mean number of other requests beside it. What is negative or not finite is
        left out whole; what is 0 has no logarithm and is left out of the test alone.
        """
        watch = self._watches[model, profile, quantity]
        of_class = _classify_load(running) if quantity == JOULES else 0
        watch.add_comparison(predicted, observed, of_class)
        self._touched.add(watch)

    def publish_metrics(self) -> None:
        """Enter into the metrics what was added since; a batch costs little more than one."""
        for watch in self._touched:
            watch.publish_metrics()
        self._touched.clear()

    def reset_tests(self, profile: str) -> None:
        """Begin the tests anew: another profile predicts, and its bias is its own."""
        for (_, of, _), watch in self._watches.items():
            if of == profile:
                watch.reset_test()


def _classify_load(running: float) -> int:
    """Return the class of a load: steps of a fifth in 1 + r, up to about a thousand."""
    return min(_MOST_CLASSES, round(_CLASSES_PER_E * log(1.0 + running))) if running > 0.0 else 0


class _DriftSeries:
    """One model's quantity under one profile: its series, bound once, its test, what is new."""

    __slots__ = ("counters", "new", "score", "test")

    def __init__(self, drift: DriftMetrics, model: str, quantity: str, profile: str) -> None:
        labels = (model, quantity, profile)
        sums = (drift.predicted, drift.observed, drift.error)
        self.counters = (
            drift.requests.labels(*labels),
            *(family[quantity].labels(model, profile) for family in sums),
            drift.alarms.labels(*labels),
        )
        self.score = drift.score.labels(*labels)
        self.new = [0.0] * len(self.counters)
        delta, threshold = _SETTINGS[quantity]
        self.test = PageHinkley(delta, threshold, _DECAY)

    def add_comparison(self, predicted: float, observed: float, load_class: int) -> None:
        if not (0.0 <= predicted < inf and 0.0 <= observed < inf):  # as no NaN is
            return
        new = self.new
        new[0] += 1
        new[1] += predicted
        new[2] += observed
        new[3] += abs(observed - predicted)
        if predicted and observed:
            off_by = log(observed) - log(predicted)
            new[4] += self.test.add_value(off_by, load_class)

    def publish_metrics(self) -> None:
        for counter, amount in zip(self.counters, self.new, strict=True):
            counter.inc(amount)
        self.new = [0.0] * len(self.new)
        self.score.set(self.test.score)

    def reset_test(self) -> None:
        self.test.reset_test()
        self.score.set(0)
