"""What every part of a definition or of the settings is built on: strict, frozen, and particular about its keys."""

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationInfo, model_validator

from agent.definitions.faults import Finding, Wrong

Refusal = Callable[[Mapping[str, object]], Wrong]
"""Says, seeing the whole object, why one of its keys is refused."""


def always(problem: str, remedy: str) -> Refusal:
    """The same refusal whatever else the object holds."""
    return lambda _: Wrong(problem, remedy)


OWN_TOKEN = always("svcagent registers with its own token", "remove it, and set CONSUL_HTTP_TOKEN_FILE")


class Part(BaseModel):
    """An object of a definition file.

    A model built in Python takes its own field names and seconds as numbers; one validated with `FROM_A_FILE` takes
    what `tidy` made of a file, where durations are text and `tidy` has asked `across` already.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    spellings: ClassVar[Mapping[str, str]] = {}
    """Further names of a key, folded, and the field each stands for."""

    refused: ClassVar[Mapping[str, Refusal]] = {}
    """Folded keys that are no fields, and deserve to be told more than "unknown key"."""

    @classmethod
    def across(cls, given: Mapping[str, object]) -> Iterator[Finding]:  # noqa: ARG003  # for those who override it
        """Faults that no single field shows, by the key that should change.

        ``given`` is not validated: it holds what was written under the names of fields, and refused keys, folded.
        Asking before validation is what lets one report name these faults beside those of single fields.
        """
        yield from ()

    @model_validator(mode="after")
    def _agrees_with_itself(self, info: ValidationInfo) -> Self:
        if info.context is None:
            given = {name: value for name in self.model_fields_set if (value := getattr(self, name)) is not None}
            for finding in self.across(given):
                raise Wrong(f"{finding.path}: {finding.problem}" if finding.path else finding.problem, finding.remedy)
        return self


FROM_A_FILE: Mapping[str, object] = {"from": "a file"}
"""The validation context of everything that was read, not built."""
