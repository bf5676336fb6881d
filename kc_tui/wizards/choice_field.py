"""Where the pages find the choice among few: it is a widget of all forms."""

from kc_tui.widgets.choice_field import ChoiceField

__all__ = ["ChoiceField"]
