"""`python -m support.serve_streams HOME`: the server of `stream_app` in a process of its own, to be killed."""

from __future__ import annotations

import sys
from pathlib import Path

from support.memory_kc import close_services, furnish, make_service
from support.stream_app import stream_server

if __name__ == "__main__":
    home = Path(sys.argv[1])
    service = make_service(home)
    if service.store.find("Network", "default") is None:
        furnish(service)
    with stream_server(home, service) as running:
        print(running.url, flush=True)
        sys.stdin.read()
    close_services()
