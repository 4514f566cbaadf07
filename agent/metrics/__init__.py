"""Prometheus metrics: the series of this host and of its reloads, as served and as written to textfiles."""
