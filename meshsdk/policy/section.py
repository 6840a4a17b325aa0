"""What every section of a document is: strict, closed to unknown keys, each field with a default and its reason."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Percent", "Section", "Share", "number", "omitted", "setting"]

Percent = Annotated[float, Field(ge=0, le=100)]
"""A number from 0 to 100."""

Share = Annotated[float, Field(ge=0, le=1)]
"""A number from 0 to 1."""


class Section(BaseModel):
    """Keys and values of a document; no key is needed, no other key is taken, no value is converted by guess."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, validate_by_name=False, validate_by_alias=True
    )

    @classmethod
    def fields(cls) -> dict[str, type[Section] | None]:
        """Each key as documents spell it, with the section beneath it, if there is one."""
        return {
            field.alias or name: kind
            if isinstance(kind := field.annotation, type) and issubclass(kind, Section)
            else None
            for name, field in cls.model_fields.items()
        }

    @classmethod
    def items(cls) -> dict[str, type[Section]]:
        """Each key that holds a list of sections, or sections by name, with what they are."""
        return {
            field.alias or name: kind
            for name, field in cls.model_fields.items()
            for kind in get_args(field.annotation)
            if isinstance(kind, type) and issubclass(kind, Section)
        }

    @classmethod
    def written_defaults(cls) -> dict[str, Any]:
        """The built-in defaults as a document would write them."""
        below = cls.fields()
        return {
            key: section.written_defaults() if (section := below[key]) else field.default
            for key, field in zip(below, cls.model_fields.values(), strict=True)
            if field.default is not None and not field.is_required()
        }


def number(value: float) -> float:
    """A number as people write it: 50, not 50.0."""
    return int(value) if value == int(value) else value


def omitted(description: str, alias: str | None = None) -> Any:
    """A field that has no default, and is None where it is left out; a document cannot write that None."""
    return Field(default=None, alias=alias, description=" ".join(description.split()))


def setting(default: object, description: str) -> Any:
    """A field of a section: its default as a document would write it, and what the reference says about it."""
    return Field(default=default, validate_default=True, description=" ".join(description.split()))
