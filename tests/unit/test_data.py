"""Dataclasses that are quick to make are as those of the standard library."""

import dataclasses

import pytest

from agent.data import dataclass


@dataclass(frozen=True)
class Point:
    x: int
    y: int = 0
    tags: tuple[str, ...] = dataclasses.field(default_factory=tuple, repr=False)
    note: str = dataclasses.field(default="", compare=False)


@dataclass(frozen=True)
class Named(Point):
    name: str = ""


@dataclass
class Count:
    number: int = 0
    names: list[str] = dataclasses.field(default_factory=list)


def test_instances_compare_hash_and_print_by_their_fields() -> None:
    assert Point(1, y=2) == Point(x=1, y=2, note="another") != Point(1, 3)
    assert hash(Point(1, 2)) == hash(Point(1, 2, note="another"))
    assert repr(Point(1, 2)) == "Point(x=1, y=2, note='')"
    assert Named(1) != Point(1)
    assert Named(1, name="a") == Named(1, 0, (), "", "a")


def test_the_functions_of_the_standard_library_work_on_them() -> None:
    assert dataclasses.replace(Point(1, note="n"), y=5) == Point(1, 5)
    assert dataclasses.asdict(Named(1)) == {"x": 1, "y": 0, "tags": (), "note": "", "name": ""}
    assert [field.name for field in dataclasses.fields(Named)] == ["x", "y", "tags", "note", "name"]
    match Point(1, 2):
        case Point(x, y):
            assert (x, y) == (1, 2)


def test_only_one_that_is_not_frozen_can_be_changed() -> None:
    count = Count()
    count.number += 1
    count.names.append("a")

    assert (count, Count().names) == (Count(1, ["a"]), [])
    with pytest.raises(TypeError, match="unhashable"):
        hash(count)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Point(1).x = 2  # type: ignore[misc]  # the point of the test
    with pytest.raises(dataclasses.FrozenInstanceError):
        del Point(1).x


@pytest.mark.parametrize(
    ("positional", "given"), [((), {}), ((1,), {"x": 1}), ((1,), {"z": 1}), ((1, 2, (), "", 5), {}), ((), {"y": 1})]
)
def test_wrong_arguments_are_a_type_error(positional: tuple[int, ...], given: dict[str, int]) -> None:
    with pytest.raises(TypeError, match="Point takes"):
        Point(*positional, **given)  # type: ignore[arg-type]  # the point of the test
