"""KC's application as a program, on a host in memory: memory_app.py HOME [SCENE].

SCENE is `usual`, `empty`, `hostile`, `many` or `crash`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from snapshots.scenes import fill

from backend.settings import load_settings
from kc_tui.app import FRAMES_PER_SECOND, run_with, scrub_environment
from support.memory_kc import make_service
from support.world import Lab, uid_of

HOSTILE = "\x1b]52;c;cHduZWQ=\x07\x1b]0;owned\x07[@click=app.quit]x[/]\u202e\x9b31m"


def main() -> int:
    """Run the application."""
    import os

    home, scene = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "usual"
    scrub_environment(os.environ)
    os.environ["TEXTUAL_FPS"] = FRAMES_PER_SECOND
    lab = Lab(home)
    if scene == "usual":
        fill(lab)
    elif scene == "hostile":
        lab.add_vm("web", metadata={HOSTILE: HOSTILE})
        lab.add_foreign(HOSTILE)
    elif scene == "many":
        _add_many(lab, 10_000)
    if scene == "crash":
        _crash_soon()
    settings = load_settings(environment={"KC_HOME": str(home)})
    return run_with(settings, lambda: make_service(home, lab.host), (home / "goes-on").touch)


def _add_many(lab: Lab, count: int) -> None:
    template = lab.add_vm("template")
    body: dict[str, Any] = {key: value for key, value in template.items() if key not in ("version", "status")}
    for start in range(0, count, 500):
        with lab.service.store.transaction() as transaction:
            for number in range(start, start + 500):
                transaction.put(body | {"name": f"vm-{number}", "uid": uid_of(f"vm-{number}")}, expect=0)


def _crash_soon() -> None:
    from kc_tui.application import KCApp

    mount = KCApp.on_mount

    def crash(app: KCApp) -> None:
        mount(app)
        app.set_timer(0.5, lambda: 1 // 0)

    KCApp.on_mount = crash  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.exit(main())
