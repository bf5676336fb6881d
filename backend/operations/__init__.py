"""The durable journal: operations, their steps, leases, cancel and progress."""
