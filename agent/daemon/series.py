"""Series of numbers by labels: what is counted and measured, the format it is given in, and taken up from again.

The counters of prometheus_client cannot be set to what another process had counted, and lose their labels one set at a
time while somebody reads; here they are plain dictionaries, and the library does names, format and parsing.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.samples import Sample

Labels = tuple[str, ...]


class Damaged(ValueError):
    """Samples that no `Family` of this version wrote."""


class Family(Protocol):
    """All series of one name."""

    name: str

    def forget(self, first: str) -> None:
        """Let go of all series whose first label is this."""

    def metric(self) -> Metric | None:
        """For the library; None where there is no series, so that no bare name is told."""

    def resume(self, samples: Iterable[Sample]) -> None:
        """Go on from what was told before.

        :raises Damaged: they are none of its own.
        """


class Series:
    """A counter if its name ends in ``_total``, else a gauge."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self.values: dict[Labels, float] = {}
        self._text = text
        self._labels = tuple(labels)
        self._is_counter = name.endswith("_total")

    def set(self, value: float, *labels: str) -> None:
        """Make it this."""
        self.values[labels] = value

    def add(self, *labels: str, by: float = 1) -> None:
        """Count; by 0 where it should be told before there is anything to count."""
        self.values[labels] = self.values.get(labels, 0) + by

    def forget(self, first: str) -> None:
        """Let go of all series whose first label is this."""
        self.values = {labels: value for labels, value in self.values.items() if labels[0] != first}

    def metric(self) -> Metric | None:
        """For the library."""
        if not self.values:
            return None
        make = CounterMetricFamily if self._is_counter else GaugeMetricFamily
        metric = make(self.name, self._text, labels=self._labels)
        for labels, value in self.values.items():
            metric.add_metric(labels, value)
        return metric

    def resume(self, samples: Iterable[Sample]) -> None:
        """Go on from what was told before."""
        self.values = {_labels(one.labels, self._labels): _number(one.value) for one in samples}


class Histogram:
    """How often something took how long: ``bounds`` in seconds, the last one, infinite, is added."""

    def __init__(self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self.name = name
        self._text = text
        self._labels = tuple(labels)
        self._bounds = (*bounds, math.inf)
        self._counts: dict[Labels, list[float]] = {}
        """As Prometheus has them: up to each bound, those below it among them."""
        self._sums: dict[Labels, float] = defaultdict(float)

    def observe(self, seconds: float, *labels: str) -> None:
        """It took so long."""
        counts = self._counts.setdefault(labels, [0] * len(self._bounds))
        for at, bound in enumerate(self._bounds):
            counts[at] += seconds <= bound
        self._sums[labels] += seconds

    def forget(self, first: str) -> None:
        """Let go of all series whose first label is this."""
        for labels in [one for one in self._counts if one[0] == first]:
            del self._counts[labels], self._sums[labels]

    def metric(self) -> Metric | None:
        """For the library."""
        if not self._counts:
            return None
        metric = HistogramMetricFamily(self.name, self._text, labels=self._labels)
        for labels, counts in self._counts.items():
            buckets = [(_bound(bound), count) for bound, count in zip(self._bounds, counts, strict=True)]
            metric.add_metric(labels, buckets, self._sums[labels])
        return metric

    def resume(self, samples: Iterable[Sample]) -> None:
        """Go on from what was told before."""
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


def _bound(seconds: float) -> str:
    return "+Inf" if math.isinf(seconds) else str(float(seconds))


def _labels(found: Mapping[str, str], names: Labels) -> Labels:
    if found.keys() != set(names):
        raise Damaged(f"labels {', '.join(found) or '(none)'} instead of {', '.join(names) or 'none'}")
    return tuple(found[name] for name in names)


def _number(value: float) -> float:
    """What is counted and measured here is never negative."""
    if not (math.isfinite(value) and value >= 0):
        raise Damaged(f"a value of {value}")
    return value
