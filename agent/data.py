"""Dataclasses that are created quickly.

`dataclasses` compiles the methods of each class from source at every start: about a millisecond a class, and a verb
has a hundred of them. Here all classes share their methods. `dataclasses.replace`, `fields` and `asdict` work as usual.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    import dataclasses

    def dataclass(cls: type | None = None, /, *, frozen: bool = False, **options: Any) -> Any:
        """Act as `dataclasses.dataclass`, which is used for a class that needs more than the methods below offer."""
        if cls is None:
            return lambda cls: dataclass(cls, frozen=frozen, **options)
        if options or any(isinstance(one, dataclasses.Field) and not one.init for one in vars(cls).values()):
            return dataclasses.dataclass(frozen=frozen, **options)(cls)
        dataclasses.dataclass(cls, init=False, repr=False, eq=False)
        fields = dataclasses.fields(cls)
        cls._names = tuple(field.name for field in fields)
        cls._compared = tuple(field.name for field in fields if field.compare)
        cls._shown = tuple(field.name for field in fields if field.repr)
        cls._defaults = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
        cls._factories = {
            field.name: field.default_factory for field in fields if field.default_factory is not dataclasses.MISSING
        }
        cls.__init__, cls.__repr__, cls.__eq__ = _init, _repr, _equals
        cls.__hash__ = _hash if frozen else None
        if frozen:
            cls.__setattr__ = cls.__delattr__ = _refuse
        return cls

    def _init(self: Any, /, *positional: Any, **given: Any) -> None:
        if positional:
            named = dict(zip(self._names, positional, strict=False))
            if len(positional) > len(named) or not named.keys().isdisjoint(given):
                raise TypeError(f"{type(self).__name__} takes each of {', '.join(self._names)} once")
            given = named | given
        if len(given) < len(self._names):
            for name, make in self._factories.items():
                if name not in given:
                    given[name] = make()
            given = self._defaults | given
        if len(given) != len(self._names) or not all(name in given for name in self._names):
            raise TypeError(f"{type(self).__name__} takes {', '.join(self._names)}, not {', '.join(given)}")
        self.__dict__.update(given)

    def _repr(self: Any) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._shown)
        return f"{type(self).__qualname__}({shown})"

    def _equals(self: Any, other: Any) -> Any:
        return _values(self) == _values(other) if type(other) is type(self) else NotImplemented

    def _hash(self: Any) -> int:
        return hash(_values(self))

    def _values(self: Any) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self._compared)

    def _refuse(_self: Any, name: str, *_value: Any) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot change field {name!r}")


__all__ = ["dataclass"]
