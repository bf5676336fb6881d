"""What the kernel of a host does for KC's networks: VXLAN devices, guarded ports, and what is really there.

Nothing here knows libvirt: a host is spoken to through `backend.network.shell`, on this machine or over ssh.
"""
