"""Types of the calls to QEMU's guest agent that KC makes."""

from libvirt import virDomain

def qemuAgentCommand(domain: virDomain, cmd: str, timeout: int, flags: int) -> str: ...
