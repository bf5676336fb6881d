# ruff: noqa: INP001 - a script beside its pictures is no package
"""Draw the pictures in this folder from the real application: make.py [--check] [NAME…].

With --check nothing is written; the exit code is 1 where a picture is not what the application shows.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]


async def main() -> int:
    """Draw, or compare, each scene at each of its sizes."""
    from snapshots.scenes import SCENES, play  # noqa: PLC0415 - it needs the path above

    wanted = {argument for argument in sys.argv[1:] if not argument.startswith("-")}
    is_check = "--check" in sys.argv
    differing = []
    for scene in SCENES:
        if wanted and scene.name not in wanted:
            continue
        for size in scene.sizes:
            name = f"{scene.name}-{size[0]}x{size[1]}.svg"
            with tempfile.TemporaryDirectory(prefix="kc-scene-") as folder:
                picture, _ = await play(scene, size, Path(folder))
            path = HERE / name
            if is_check:
                if not path.exists() or path.read_text("utf-8") != picture:
                    differing.append(name)
            else:
                path.write_text(picture, "utf-8")
                sys.stdout.write(f"{name}\n")
    for name in differing:
        sys.stderr.write(f"{name} is not what the application shows; run make screenshots\n")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
