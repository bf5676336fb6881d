"""A style sheet that is parsed once for each theme."""

from __future__ import annotations

from textual.css.stylesheet import Stylesheet


class LastingStylesheet(Stylesheet):
    """Textual parses all styles at each refresh, five times before the first picture; this one for new variables."""

    def set_variables(self, variables: dict[str, str]) -> None:
        """Take the variables of a theme; the same ones change nothing."""
        if variables != self._variables:
            super().set_variables(variables)
            self._require_parse = True

    def reparse(self) -> None:
        """Parse what has changed since the last time, if anything."""
        if self._require_parse:
            self.parse()
