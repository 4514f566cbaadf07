"""Metric series by labels, which can be resumed from published samples.

prometheus_client's counters cannot be set to another process's counts, and lose their labels one set at a time while
being read. So these are plain dictionaries, and the library handles names, format and parsing.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.samples import Sample

from agent.clock import Clock

Labels = tuple[str, ...]


class Damaged(ValueError):
    """Samples that no `Family` of this version wrote."""


class Series:
    """A counter if its name ends in ``_total``, else a gauge."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self.values: dict[Labels, float] = {}
        self._text = text
        self._labels = tuple(labels)
        self._is_counter = name.endswith("_total")

    def set(self, value: float, *labels: str) -> None:
        self.values[labels] = value

    def add(self, *labels: str, by: float = 1) -> None:
        """Add to the counter; ``by`` 0 publishes it before there is anything to count."""
        self.values[labels] = self.values.get(labels, 0) + by

    def forget(self, first: str) -> None:
        self.values = {labels: value for labels, value in self.values.items() if labels[0] != first}

    def metric(self) -> Metric | None:
        """Return the library's metric; None without series, so that no bare name is published."""
        if not self.values:
            return None
        make = CounterMetricFamily if self._is_counter else GaugeMetricFamily
        metric = make(self.name, self._text, labels=self._labels)
        for labels, value in self.values.items():
            metric.add_metric(labels, value)
        return metric

    def resume(self, samples: Iterable[Sample]) -> None:
        """Continue from published samples. Raise `Damaged` if they are not this family's."""
        self.values = {_labels(one.labels, self._labels): _number(one.value) for one in samples}


class Histogram:
    """Durations in buckets. ``bounds`` are in seconds; an infinite one is added."""

    def __init__(self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self.name = name
        self._text = text
        self._labels = tuple(labels)
        self._bounds = (*bounds, math.inf)
        self._counts: dict[Labels, list[float]] = {}
        """Cumulative counts, as in Prometheus: each bound includes those below it."""
        self._sums: dict[Labels, float] = defaultdict(float)

    def observe(self, seconds: float, *labels: str) -> None:
        counts = self._counts.setdefault(labels, [0] * len(self._bounds))
        for at, bound in enumerate(self._bounds):
            counts[at] += seconds <= bound
        self._sums[labels] += seconds

    def forget(self, first: str) -> None:
        for labels in [one for one in self._counts if one[0] == first]:
            del self._counts[labels], self._sums[labels]

    def metric(self) -> Metric | None:
        if not self._counts:
            return None
        metric = HistogramMetricFamily(self.name, self._text, labels=self._labels)
        for labels, counts in self._counts.items():
            buckets = [(_bound(bound), count) for bound, count in zip(self._bounds, counts, strict=True)]
            metric.add_metric(labels, buckets, self._sums[labels])
        return metric

    def resume(self, samples: Iterable[Sample]) -> None:
        found: dict[Labels, dict[float, float]] = defaultdict(dict)
        sums: dict[Labels, float] = {}
        for one in samples:
            if one.name.endswith("_bucket"):
                *labels, bound = _labels(one.labels, (*self._labels, "le"))
                found[tuple(labels)][float(bound)] = _number(one.value)
            elif one.name.endswith("_sum"):
                sums[_labels(one.labels, self._labels)] = _number(one.value)
        if found.keys() != sums.keys() or any(tuple(counts) != self._bounds for counts in found.values()):
            raise Damaged(f"{self.name} has other buckets")
        self._counts = {labels: list(counts.values()) for labels, counts in found.items()}
        self._sums.clear()
        self._sums.update(sums)


Family: TypeAlias = Series | Histogram
"""All series of one name."""


class SeriesGroup:
    """Families that are updated together. ``lasting`` are those that another process's output can be continued from."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.families: list[Family] = []
        self.lasting: list[Family] = []

    @property
    def metrics(self) -> list[Metric]:
        """The families that have any series."""
        return [metric for family in self.families if (metric := family.metric())]

    def _series(self, name: str, text: str, *labels: str, lasting: bool = True) -> Series:
        series = Series(name, text, labels)
        self.families.append(series)
        self.lasting += [series] if lasting else []
        return series

    def _histogram(self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]) -> Histogram:
        histogram = Histogram(name, text, labels, bounds)
        self.families.append(histogram)
        self.lasting.append(histogram)
        return histogram

    def _now(self) -> float:
        return self._clock.now().timestamp()


def _bound(seconds: float) -> str:
    return "+Inf" if math.isinf(seconds) else str(float(seconds))


def _labels(found: Mapping[str, str], names: Labels) -> Labels:
    if found.keys() != set(names):
        raise Damaged(f"labels {', '.join(found) or '(none)'} instead of {', '.join(names) or 'none'}")
    return tuple(found[name] for name in names)


def _number(value: float) -> float:
    """Return the value of a sample, which is never negative here."""
    if not (math.isfinite(value) and value >= 0):
        raise Damaged(f"a value of {value}")
    return value
