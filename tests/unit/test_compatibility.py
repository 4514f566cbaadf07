"""The page of releases that svcagent was tested with."""

import pytest

from tests.compatibility import PAGE, Record, measured, page, read, recorded, state

RECORD = Record("13", "3.13.5", "1.8.7", "26.1.5", "containerd", "", {"real": 7, "fleet": 3})


def test_the_page_is_what_the_records_say() -> None:
    assert page(read(), recorded()) == PAGE.read_text(), "run scripts/compatibility"


def test_a_record_is_one_row_and_the_releases_of_its_parts_are_tested() -> None:
    lines = page([RECORD], ["1.22.3"]).splitlines()

    assert "| 13 | 3.13.5 | 1.8.7 | 26.1.5 | containerd | - | real 7, fleet 3 |" in lines
    assert {"| 1.8 | tested here |", "| 1.22 | recorded |", "| 2.0 | unknown |", "| 9.20 | unknown |"} <= {*lines}


@pytest.mark.parametrize(
    ("series", "tested", "recorded_releases", "expected"),
    [
        ("1.2", ["1.21.5"], ["1.20.1"], "unknown"),
        ("1.21", ["1.21.5"], ["1.21.4"], "tested here"),
        ("1.21", [], ["1.21"], "recorded"),
        ("29", ["29.1.0"], [], "tested here"),
    ],
)
def test_a_version_has_one_series(series: str, tested: list[str], recorded_releases: list[str], expected: str) -> None:
    assert state(series, tested, recorded_releases) == expected


def test_a_run_names_only_the_parts_that_it_used() -> None:
    found = measured({"tests/unit/test_steps.py": 5})

    assert (found.consul, found.engine, found.store, found.bind) == ("", "", "", "")
    assert found.passed == {"unit": 5}


def test_a_run_with_servers_names_their_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SVCAGENT_TEST_STORE", "containerd")

    found = measured({"tests/real/test_cname_cli.py": 2, "tests/fleet/test_reload.py": 1})

    assert all(version[0].isdigit() for version in (found.consul, found.engine, found.bind))
    assert found.store == "containerd"
    assert found.passed == {"real": 2, "fleet": 1}
