"""The wizard as a machine: forward, back, and where an error may lead."""

import pytest

from kc_tui.state.wizard import Mark, Step, Wizard

STEPS = tuple(Step(name, name) for name in ("image", "network", "review"))


def marks(wizard: Wizard) -> list[Mark]:
    return [mark for _, mark in wizard.marks]


def test_it_begins_at_its_first_step_or_where_it_was_left():
    assert Wizard(STEPS).step.id == "image"
    assert Wizard(STEPS, "network").step.id == "network"
    assert Wizard(STEPS, "a step of another version").step.id == "image"


def test_it_goes_forward_to_the_last_step_and_no_further():
    wizard = Wizard(STEPS)
    assert [wizard.forward(), wizard.forward(), wizard.forward()] == [True, True, False]
    assert wizard.is_last
    assert marks(wizard) == [Mark.DONE, Mark.DONE, Mark.NOW]


def test_what_was_reached_stays_done_while_one_goes_back():
    wizard = Wizard(STEPS, "review")
    assert wizard.back()
    assert wizard.back()
    assert not wizard.back()
    assert wizard.is_first
    assert marks(wizard) == [Mark.NOW, Mark.DONE, Mark.AHEAD]


@pytest.mark.parametrize(("step", "reached"), [("image", True), ("review", False), ("nowhere", False)])
def test_one_can_be_sent_only_to_a_step_that_was_reached(step: str, reached: bool):
    wizard = Wizard(STEPS, "network")
    assert wizard.go(step) is reached
    assert wizard.step.id == (step if reached else "network")
