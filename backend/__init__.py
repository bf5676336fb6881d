"""What does the work: documents, store, operations, hypervisor, networks, images."""

__version__ = "0.1.0"
