"""The starter image: a small guest of Debian's own packages that a newcomer boots first and that tests boot always."""

from backend.images.starter.builder import RECIPE, build, recipe
from backend.images.starter.tools import missing_tools

__all__ = ["RECIPE", "build", "missing_tools", "recipe"]
