"""Go's durations. The tables were checked against Consul 1.8.7, which is written in Go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.definitions import durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10.0),
        ("1m30s", 90.0),
        ("1.5h", 5400.0),
        ("+5s", 5.0),
        ("-5s", -5.0),
        (".5s", 0.5),
        ("5.s", 5.0),
        ("1µs", 1e-6),
        ("1μs", 1e-6),
        ("1us", 1e-6),
        ("1ns", 1e-9),
        ("0", 0.0),
        ("-0", 0.0),
        ("0s", 0.0),
        ("1m1m", 120.0),
        ("9223372036854775807ns", 9223372036.854775807),
    ],
)
def test_what_go_reads(text: str, seconds: float) -> None:
    assert durations.seconds(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 5s",
        "5s ",
        "5s\n",
        "1h 5s",
        "10",
        "1d",
        "s",
        ".s",
        "5S",
        "1e3s",
        "--5s",
        "+",
        "-",
        "1,5s",
        "٣s",
        "0x1s",
        "2562048h",
        "9223372036854775808ns",
    ],
)
def test_what_go_does_not_read(text: str) -> None:
    with pytest.raises(durations.InvalidDuration):
        durations.seconds(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (1.0, "1s"),
        (90.5, "1m30.5s"),
        (3600.0, "1h0m0s"),
        (0.25, "250ms"),
        (1e-6, "1µs"),
        (1.5e-6, "1.5µs"),
        (1e-9, "1ns"),
        (-90.0, "-1m30s"),
        (86400.0, "24h0m0s"),
        (60.0, "1m0s"),
    ],
)
def test_seconds_are_written_as_go_writes_them(seconds: float, text: str) -> None:
    assert durations.text(seconds) == text


@given(st.integers(min_value=-(10**15), max_value=10**15))
def test_what_is_written_reads_back(nanoseconds: int) -> None:
    """Up to eleven days a float holds every nanosecond."""
    assert durations.nanoseconds(durations.text(nanoseconds / 10**9)) == nanoseconds


@given(st.text(alphabet="0123456789.+-nuµmsh ", max_size=12))
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    try:
        value = durations.nanoseconds(text)
    except durations.InvalidDuration:
        return
    assert abs(value) <= durations.LONGEST
