"""The pictures in `screenshots/` are what the application shows; `make screenshots` draws them anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from snapshots.scenes import SCENES, Scene, play

PICTURES = Path(__file__).parents[2] / "screenshots"
CASES = [pytest.param(scene, size, id=f"{scene.name}-{size[0]}x{size[1]}") for scene in SCENES for size in scene.sizes]


@pytest.mark.parametrize(("scene", "size"), CASES)
async def test_a_scene_looks_as_in_its_picture(scene: Scene, size: tuple[int, int], tmp_path: Path):
    picture, text = await play(scene, size, tmp_path / "kc")
    expected = PICTURES / f"{scene.name}-{size[0]}x{size[1]}.svg"
    if picture != expected.read_text("utf-8"):
        actual = tmp_path / expected.name
        actual.write_text(picture, "utf-8")
        pytest.fail(f"{expected.name} is not what is shown (see {actual}; make screenshots draws it anew):\n{text}")


def test_there_is_no_picture_without_a_scene():
    names = {f"{scene.name}-{columns}x{rows}.svg" for scene in SCENES for columns, rows in scene.sizes}
    assert {path.name for path in PICTURES.glob("*.svg")} == names
