"""The commands upon networks, in the order of the key bar and the help."""

from __future__ import annotations

from typing import Final

from kc_tui.commands.command import Command, Danger, Scope
from kc_tui.commands.conditions import can_change, has_one

NETWORK_COMMANDS: Final = (
    Command(
        id="network.create",
        title="new network",
        word="new",
        keys=("n",),
        scope=Scope.NETWORK,
        help="Walk through the way outside, addresses, gateway and VXLAN to a network.",
        bar=2,
    ),
    Command(
        id="network.change",
        title="change a network",
        word="edit",
        keys=("e",),
        scope=Scope.NETWORK,
        help="Change addresses, gateway, DNS or VXLAN; what that does to running VMs is shown first.",
        danger=Danger.CONFIRM,
        when=lambda context: has_one("a change")(context) or can_change(context),
        bar=4,
        twin="edit",
    ),
    Command(
        id="network.reconcile",
        title="mend as documented",
        word="mend",
        keys=("a",),
        scope=Scope.NETWORK,
        help="Show what is wrong with the network on the host, and put it right.",
        danger=Danger.CONFIRM,
        when=can_change,
        bar=10,
    ),
    Command(
        id="network.topology",
        title="topology",
        keys=("t",),
        scope=Scope.APP,
        help="Show networks, VMs, gateways and uplinks as a picture.",
    ),
)
"""All commands upon networks but deletion."""
