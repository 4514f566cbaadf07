"""The base of every object in definitions and settings: frozen, strict, and with known keys only.

A part is a class whose fields declare their type twice: to mypy by annotation, to svcagent by `ValueType`. A part built
in Python is not checked; `StrictModel.read` checks the content of a file and finds every fault of it.

It does not use pydantic, whose import and validators take longer than everything else that most verbs do.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Self, dataclass_transform

from agent.definitions.faults import Finding, InvalidValue, fold, is_secret, joined, kind_of, listed, shown

Refusal = Callable[[Mapping[str, object]], InvalidValue]
"""Takes the whole object, and says why one of its keys is refused."""

Location = tuple[str | int, ...]

Schema = dict[str, Any]

BAD: Any = object()

_REQUIRED = object()


def always(problem: str, remedy: str) -> Refusal:
    """Return a refusal that does not depend on the rest of the object."""
    return lambda _: InvalidValue(problem, remedy)


TOKEN_REFUSAL = always("svcagent registers with its own token", "remove it, and set CONSUL_HTTP_TOKEN_FILE")


def rule(holds: Callable[[Any], object], problem: str, remedy: str) -> Callable[[Any], Any]:
    """Return a check that accepts the values for which ``holds`` returns true. ``problem`` follows the value."""

    def check(value: Any) -> Any:
        if not holds(value):
            raise InvalidValue(f"{shown(value)} {problem}", remedy)
        return value

    return check


class ValueType:
    """The type of a field: one of JSON's types, and checks that the value must pass.

    Each check returns the value, possibly changed, or raises `InvalidValue`. ``wanted`` is None if the first check
    examines the type. ``schema`` is the JSON Schema.
    """

    def __init__(self, wanted: type | None, *checks: Callable[[Any], Any], **schema: Any) -> None:
        self._wanted = wanted
        self._checks = checks
        self.schema = schema

    @property
    def example(self) -> str:
        """An example of an object or of a list of objects, for messages; else empty."""
        return ""

    def also(self, *checks: Callable[[Any], Any]) -> "ValueType":
        return ValueType(self._wanted, *self._checks, *checks, **self.schema)

    def read(self, value: Any, at: Location, found: list[Finding]) -> Any:
        """Return the value or `BAD`, and add its faults to ``found``."""
        try:
            if self._wanted is not None and type(value) is not self._wanted:
                raise wrong_type(value, self._wanted, is_secret=is_secret(path_of(at)), example=self.example)
            value = self._inside(value, at, found)
            if value is not BAD:
                for check in self._checks:
                    value = check(value)
        except InvalidValue as wrong:
            found.append(Finding(path_of(at), wrong.problem, wrong.remedy))
            return BAD
        return value

    def _inside(self, value: Any, _at: Location, _found: list[Finding]) -> Any:
        return value


class ListOf(ValueType):
    """A list, which becomes a tuple."""

    def __init__(self, item: ValueType, *checks: Callable[[Any], Any]) -> None:
        super().__init__(tuple, *checks)
        self.item = item

    @property
    def example(self) -> str:
        return f"[{self.item.example}]" if self.item.example else ""

    def _inside(self, value: Any, at: Location, found: list[Finding]) -> Any:
        items = tuple(self.item.read(item, (*at, index), found) for index, item in enumerate(value))
        return BAD if any(item is BAD for item in items) else items


class MapOf(ValueType):
    """An object with arbitrary keys."""

    def __init__(self, item: ValueType, *checks: Callable[[Any], Any]) -> None:
        super().__init__(dict, *checks)
        self.item = item

    def _inside(self, value: Any, at: Location, found: list[Finding]) -> Any:
        items = {key: self.item.read(item, (*at, key), found) for key, item in value.items()}
        return BAD if any(item is BAD for item in items.values()) else items


class ObjectOf(ValueType):
    """An object that becomes a `StrictModel`."""

    def __init__(self, model: type["StrictModel"]) -> None:
        super().__init__(dict)
        self.model = model

    @property
    def example(self) -> str:
        return self.model.example

    def _inside(self, value: Any, at: Location, found: list[Finding]) -> Any:
        return self.model.read(value, at, found)


class Field:
    def __init__(self, kind: ValueType, description: str, default: Any) -> None:
        self.kind = kind
        self.description = description
        self.default = default

    @property
    def is_required(self) -> bool:
        return self.default is _REQUIRED


def required(kind: ValueType, description: str) -> Any:
    return Field(kind, description, _REQUIRED)


def optional(kind: ValueType, description: str, default: Any = None) -> Any:
    return Field(kind, description, default)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(required,))
class StrictModel:
    """An object of a definition file or of the settings. It holds the given values, its class the defaults."""

    keys: ClassVar[Mapping[str, Field]] = {}

    example: ClassVar[str] = ""
    """An example of the object, for messages."""

    names: ClassVar[Mapping[str, str]] = {}
    """The field for each accepted spelling, folded."""

    spellings: ClassVar[Mapping[str, str]] = {}
    """Additional names of keys, folded, and the field of each."""

    refused: ClassVar[Mapping[str, Refusal]] = {}
    """Folded keys that are not fields, and need a better message than "unknown key"."""

    extra_schema: ClassVar[Schema] = {}
    """The part of the JSON Schema that concerns several fields."""

    def __init_subclass__(cls) -> None:
        own = {name: key for name, key in vars(cls).items() if isinstance(key, Field)}
        cls.keys = {**cls.keys, **own}
        cls.names = {**{fold(name): name for name in cls.keys}, **cls.spellings}
        for name, key in own.items():
            setattr(cls, name, key.default)

    def __init__(self, **given: Any) -> None:
        if unknown := given.keys() - self.keys.keys():
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(unknown))}")
        if missing := [name for name, key in self.keys.items() if key.is_required and name not in given]:
            raise TypeError(f"{type(self).__name__} needs the field {', '.join(missing)}")
        vars(self).update(self.completed(given))

    @classmethod
    def completed(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the fields together with those that are computed from others."""
        return given

    @property
    def given(self) -> frozenset[str]:
        return frozenset(vars(self))

    def replace(self, **changes: Any) -> Self:
        copy = object.__new__(type(self))
        vars(copy).update({**vars(self), **changes})
        return copy

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot be set")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), *self._values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def _values(self) -> list[Any]:
        return [getattr(self, name) for name in self.keys]

    @classmethod
    def across(cls, given: Mapping[str, object]) -> Iterator[Finding]:  # noqa: ARG003  # for overrides
        """Yield faults that no single field shows, each with the key that should change.

        ``given`` is not validated: it has written values by field name, and refused keys, folded. Because this runs
        before validation, one report contains both these faults and those of single fields.
        """
        yield from ()

    @classmethod
    def read(cls, normalized: Mapping[str, Any], at: Location, found: list[Finding]) -> Any:
        """Return the part from an object that `validate` has normalized, or `BAD`. Add every fault to ``found``."""
        values = {}
        for name, key in cls.keys.items():
            if name in normalized:
                values[name] = key.kind.read(normalized[name], (*at, name), found)
            elif key.is_required:
                what = key.description
                remedy = f"add {shown(name)}: {what[:1].lower()}{what[1:].rstrip('.')}"
                found.append(Finding(path_of((*at, name)), "missing", remedy))
                values[name] = BAD
        return BAD if any(value is BAD for value in values.values()) else cls(**values)


def path_of(at: Location) -> str:
    path = ""
    for key in at:
        path = joined(path, key)
    return path


def choice(*words: str) -> ValueType:
    def known(value: object) -> object:
        if value not in words:
            raise InvalidValue(f"{shown(value)} is not a valid value", f"write one of {listed(words)}")
        return value

    return ValueType(None, known, enum=list(words), type="string")


_BOUNDS: Mapping[str, tuple[Callable[[int, int], bool], str]] = {
    "minimum": (int.__ge__, "at least"),
    "maximum": (int.__le__, "at most"),
    "exclusiveMaximum": (int.__lt__, "less than"),
}


def whole(**bounds: int) -> ValueType:
    """Return the type of a whole number within bounds, which are named as in JSON Schema."""

    def bounded(value: int) -> int:
        for name, bound in bounds.items():
            holds, words = _BOUNDS[name]
            if not holds(value, bound):
                raise InvalidValue(f"{shown(value)} is out of range", f"write a number that is {words} {bound}")
        return value

    return ValueType(int, bounded, **bounds, type="integer")


_TYPES: Mapping[type, tuple[str, str]] = {
    str: ("a string", 'write it in quotes, like "…"'),
    int: ("an integer", "write it without quotes and without a decimal point"),
    bool: ("a boolean", "write true or false, without quotes"),
    tuple: ("an array", "write […]"),
    dict: ("an object", "write {…}"),
}


def wrong_type(value: object, wanted: type, *, is_secret: bool, example: str = "") -> InvalidValue:
    subject = "the value" if is_secret else shown(value)
    name, remedy = _TYPES[wanted]
    if wanted is str and type(value) in (int, float):
        remedy = "write it in quotes" if is_secret else f'write "{subject}" in quotes'
    if wanted is int and isinstance(value, str) and value.isdecimal() and not is_secret:
        remedy = f"write {value} without quotes"
    if example:
        remedy = f"write it like {example}"
    elif wanted is tuple and isinstance(value, str) and not is_secret:
        remedy = f"write [{subject}]"
    return InvalidValue(f"{subject} is {kind_of(value)}, not {name}", remedy)


TEXT = ValueType(str, type="string")
BOOLEAN = ValueType(bool, type="boolean")
