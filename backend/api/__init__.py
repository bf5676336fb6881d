"""The HTTP service: thin routes over the one Service protocol, each held to a decision of the authenticators."""
