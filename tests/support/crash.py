"""A KC process that dies by SIGKILL at one point of an operation: crash.py POINT STEP ACTION NAME.

POINT is begun, worked or passed; ACTION is create, stop or delete. It ends with status 3 where the point never came.
"""

import os
import signal
import sys

from backend.local import open_service
from backend.settings import load_settings


def main() -> None:
    point, step, action, name = sys.argv[1:5]
    service = open_service(load_settings())

    def die(at: str, which: str) -> None:
        if (at, which) == (point, step):
            os.kill(os.getpid(), signal.SIGKILL)

    service.runner.trace = die
    if action == "create":
        spec = {"image": "starter", "type": "tiny", "nics": [{"network": "default"}]}
        accepted = service.create({"kind": "VM", "name": name, "spec": spec, "metadata": {"test": "crash"}})
    elif action == "delete":
        accepted = service.delete("VM", name)
    else:
        accepted = service.act(name, action, {"force": True})
    service.wait(accepted.operation["name"], timeout=120)
    sys.exit(3)


if __name__ == "__main__":
    main()
