"""The shape of a machine type's `spec`: fixed settings, and what of them a VM may choose."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from backend.model.base import Model
from backend.model.parameters import BOUNDS, TYPE_SETTINGS


class Hardware(Model):
    """The fixed settings of a machine type; a parameter of the same name overrides one."""

    cpus: Annotated[int, Field(ge=BOUNDS["cpus"][0], le=BOUNDS["cpus"][1], title="CPUs")] = 1
    memory_mib: Annotated[int, Field(ge=BOUNDS["memoryMiB"][0], le=BOUNDS["memoryMiB"][1], title="Memory")] = 512
    disk_gib: Annotated[int, Field(ge=BOUNDS["diskGiB"][0], le=BOUNDS["diskGiB"][1], title="Disk")] = 2
    max_cpus: Annotated[int, Field(ge=0, le=240, title="Most CPUs while it runs")] = Field(
        default=0, description="how many CPUs a running VM can be given; 0, or less than it has: as many as it has"
    )
    max_memory_mib: Annotated[int, Field(ge=0, le=16 << 20, title="Most memory while it runs")] = Field(
        default=0, description="how much memory a running VM can be given; 0, or less than it has: as much as it has"
    )


class MachineTypeSpec(Model):
    """A template for VMs: fixed settings, and parameters that a VM may choose within limits.

    Each parameter is a JSON Schema (2020-12) property named like the setting that it overrides: one of the hardware, or
    `firmware`, `secureBoot`, `cpuModels`. `backend.model.type_rules` says which keywords it may have.
    """

    target: Literal["vm"] = "vm"
    arch: Literal["x86_64", "aarch64"] = "x86_64"
    firmware: Literal["bios", "uefi"] = "bios"
    secure_boot: bool = Field(default=False, description="the firmware starts only what is signed; wants uefi")
    cpu_models: list[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.+-]{1,60}$")]] = Field(
        default_factory=list, max_length=16, description="CPU models; the first that the host can do is taken"
    )
    constraints: list[dict[str, Any]] = Field(
        default_factory=list,
        max_length=50,
        description="JSON Schemas that all values together, defaults too, must fit; `title` says what one is for",
    )
    description: Annotated[str, StringConstraints(max_length=2000)] = ""
    hardware: Hardware = Hardware()
    parameters: dict[str, dict[str, Any]] = Field(default_factory=dict, max_length=50)

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        from backend.model.type_rules import check_machine_type  # noqa: PLC0415 - it imports jsonschema

        check_machine_type(self.model_dump(mode="json", by_alias=True))
        return self


@cache
def setting_schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema of each setting that a parameter can override: what KC itself can do with it."""
    hardware: dict[str, dict[str, Any]] = Hardware.model_json_schema(by_alias=True)["properties"]
    whole = MachineTypeSpec.model_json_schema(by_alias=True)["properties"]
    return hardware | {name: whole[name] for name in TYPE_SETTINGS}
