"""What the models of all documents share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


def camel(name: str) -> str:
    """Return a field's JSON name: camelCase, with binary units as they are written."""
    return to_camel(name).replace("Mib", "MiB").replace("Gib", "GiB")


class Model(BaseModel):
    """What every model here shares: camelCase, no unknown field, no silent conversion."""

    model_config = ConfigDict(alias_generator=camel, populate_by_name=True, extra="forbid", strict=True)
