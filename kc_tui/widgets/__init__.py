"""Reusable widgets; none of them knows a domain object or the gateway."""
