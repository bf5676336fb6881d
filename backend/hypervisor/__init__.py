"""libvirt and QEMU: the only importer of libvirt."""
