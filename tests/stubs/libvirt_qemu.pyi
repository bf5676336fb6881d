# Types of the calls to QEMU's guest agent that KC makes.
# ruff: noqa: N802 - the names are libvirt's

from libvirt import virDomain

def qemuAgentCommand(domain: virDomain, cmd: str, timeout: int, flags: int) -> str: ...
