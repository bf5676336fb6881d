"""Networks from the keyboard: how they are, what is wrong with them, a new one, another shape, what a NIC may do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from snapshots.picture import read_text
from support.app import make_app, press, running, see, settle, until
from support.told_networks import Told, tell
from support.world import Lab, uid_of
from textual.pilot import Pilot

from backend.errors import UnreachableError
from backend.hypervisor.memory import fail_with
from backend.model.documents import Document
from backend.service import Accepted
from kc_tui.application import KCApp
from kc_tui.dialogs.choose import ChooseDialog
from kc_tui.dialogs.confirm import ConfirmDialog
from kc_tui.dialogs.form import FormDialog
from kc_tui.screens.networks import NetworkPage, NetworksScreen
from kc_tui.session import load_remembered
from kc_tui.state.draft import Nic
from kc_tui.wizards.create_network import CreateNetworkWizard
from kc_tui.wizards.create_vm import CreateVMWizard

pytestmark = pytest.mark.timeout(120)
HOSTILE = "\x1b]0;owned\x07[@click=app.quit]x[/]\u202e"
TOLD: Told = {
    "default": {
        "state": "degraded",
        "problems": [{"code": "dnsmasq-gone", "message": f"dnsmasq does not run{HOSTILE}", "hint": "press a"}],
        "gateway": {"ipv4": "192.168.150.1", "ipv6": "", "state": "silent"},
        "leases": [{"mac": "52:54:00:00:00:01", "address": "192.168.150.70", "hostname": HOSTILE}],
        "addresses": [
            {"address": "192.168.150.1", "owner": "host", "source": "host"},
            {"address": "192.168.150.70", "owner": "VM web/nic0", "source": "lease"},
        ],
        "free": {"ipv4": 189, "ipv6": 1 << 64},
    }
}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    lab.add_vm("web")
    return lab


def app_of(pilot: Pilot[None]) -> KCApp:
    assert isinstance(pilot.app, KCApp)
    return pilot.app


def wizard(pilot: Pilot[None]) -> CreateNetworkWizard:
    screen = pilot.app.screen
    assert isinstance(screen, CreateNetworkWizard)
    return screen


def network(lab: Lab, name: str) -> dict[str, Any]:
    spec: dict[str, Any] = lab.service.get("Network", name, observe=False)["spec"]
    return spec


async def at_rest(pilot: Pilot[None], lab: Lab) -> None:
    await until(pilot, lambda: not lab.service.store.leases(), "all operations have ended")
    await settle(pilot)


# --- how they are


async def test_the_list_says_how_each_network_is_and_what_is_wrong(lab: Lab):
    lab.add("Network", "calm", {"uplink": "isolated"})
    async with running(make_app(lab, factory=lambda: tell(lab, TOLD))) as pilot:
        await press(pilot, "3")
        await see(pilot, r"● calm +up +isolated")
        await see(pilot, r"▲ default +degraded +nat +192\.168\.150\.0/24 dhcp +host +1")
        await press(pilot, "j")
        await see(pilot, r"└ dnsmasq does not run")
        assert "\x1b" not in read_text(pilot.app)
        assert "\u202e" not in read_text(pilot.app)


async def test_the_page_of_a_network_tells_problems_first_then_who_has_which_address(lab: Lab):
    async with running(make_app(lab, factory=lambda: tell(lab, TOLD)), (100, 50)) as pilot:
        await press(pilot, "3", "enter")
        assert isinstance(pilot.app.screen, NetworkPage)
        for line in (
            r"▲ degraded", r"▲ dnsmasq does not run", r"→ press a", r"gateway +host, 192\.168\.150\.1, silent",
            r"192\.168\.150\.70 +VM web/nic0 +lease", r"free +189 IPv4, over 1,000,000 IPv6", r"Used by 1 VM",
        ):  # fmt: skip
            await see(pilot, line)
        text = read_text(pilot.app)
        assert text.index("dnsmasq does not run") < text.index("uplink") < text.index("Addresses in use")
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, NetworksScreen)


async def test_a_host_that_falls_silent_leaves_what_was_known_in_grey(lab: Lab):
    service = tell(lab, TOLD)
    async with running(make_app(lab, factory=lambda: service), (100, 50)) as pilot:
        await press(pilot, "3", "enter")
        await see(pilot, "VM web/nic0")
        page = pilot.app.screen
        assert isinstance(page, NetworkPage)

        def fail(*_arguments: Any, **_options: Any) -> Document:
            raise UnreachableError("host", "it does not answer")

        service.get = fail  # type: ignore[method-assign]
        page.look_closely()
        await see(pilot, r"\? degraded +as it was known last")
        await see(pilot, "VM web/nic0")


async def test_a_list_of_ten_thousand_networks_is_walked_at_once(lab: Lab):
    store = lab.service.store
    template = lab.add("Network", "template", {"uplink": "isolated"})
    body = {key: value for key, value in template.items() if key not in ("version", "status")}
    for start in range(0, 10_000, 1000):
        with store.transaction() as transaction:
            for number in range(start, start + 1000):
                transaction.put(body | {"name": f"net-{number}", "uid": uid_of(f"net-{number}")}, expect=0)
    app = make_app(lab)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "Network" in app.session.inventory.loaded, "all are known", 60)
        await pilot.press("3", "G")
        await see(pilot, r"net-9999|template")


# --- a new one


async def test_n_walks_to_a_new_network_and_the_cursor_is_on_it(lab: Lab):
    async with running(make_app(lab)) as pilot:
        await press(pilot, "3", "n", "=lab", "enter", "=10.20.0.0/24", "enter", "enter")
        await see(pilot, r"kc network create lab --ipv4 10\.20\.0\.0/24 --ipv4-mode dhcp")
        await press(pilot, "y")
        assert pilot.app.clipboard == "kc network create lab --ipv4 10.20.0.0/24 --ipv4-mode dhcp"
        await press(pilot, "enter")
        await see(pilot, r"▌ . lab +")
        await at_rest(pilot, lab)
    spec = network(lab, "lab")
    assert (spec["uplink"], spec["ipv4"]["mode"], spec["gateway"]) == ("nat", "dhcp", "host")
    assert load_remembered(lab.home / "data").network_draft.values == {}


async def test_everything_common_can_be_said_and_stands_in_the_command(lab: Lab):
    async with running(make_app(lab)) as pilot:
        await press(pilot, "3", "n", "=lab", "tab", "right", "right", "enter")
        await press(
            pilot, "=10.20.0.0/24", "tab", "tab", "=10.20.0.50-10.20.0.60", "tab", "=fd00:20::/64", "tab", "right"
        )
        await press(pilot, "tab", *["backspace"] * 4, "=vm:web", "enter")
        await press(pilot, "=10.20.0.3, fd00:20::3", "tab", "=lab.example", "tab", "=1400", "tab", "=127.0.0.1", "tab")
        await press(pilot, "=77", "tab", "=127.0.0.2, 127.0.0.3", "tab", "right", "enter")
        page = wizard(pilot).review_page
        await until(pilot, lambda: "--isolate-vms" in page.command_text, "the command is there")
        assert page.command_text == (
            "kc network create lab --uplink isolated --ipv4 10.20.0.0/24 --ipv4-mode dhcp "
            "--range 10.20.0.50-10.20.0.60 --ipv6 fd00:20::/64 --ipv6-mode stateless --gateway vm:web "
            "--vxlan vni=77,local=127.0.0.1,peer=127.0.0.2,peer=127.0.0.3 --dns 10.20.0.3 --dns fd00:20::3 "
            "--search lab.example --mtu 1400 --isolate-vms"
        )


@pytest.mark.parametrize(
    ("keys", "field", "told"),
    [
        (("=10.20.0.0/2",), "ipv4", "it has host bits set"),
        (("tab", "=fd00::/65"), "ipv6", "SLAAC needs a /64"),
        (("=10.20.0.0/24", "tab", "tab", "=10.21.0.1-10.21.0.9"), "ipv4Ranges", "10.21.0.1 is not in 10.20.0.0/24"),
        (("=10.20.0.0/24", "tab", "tab", "=10.20.0.1"), "ipv4Ranges", "FIRST-LAST"),
        (("=10.20.0.0/24", "tab", "tab", "tab", "tab", *["backspace"] * 4, "=10.9.0.1"), "gateway", "is not in"),
        (("tab", "tab", *["backspace"] * 4, "=vm:we"), "gateway", "web?"),
        (("tab", "tab", *["backspace"] * 4, "=vm:nobody"), "gateway", "there is no such VM"),
    ],
    ids=["host-bits", "slaac-65", "range-outside", "no-range", "gateway-outside", "a-part-of-a-name", "unknown-vm"],
)
async def test_what_cannot_be_is_told_beside_its_field_while_one_types(
    lab: Lab, keys: tuple[str, ...], field: str, told: str
):
    async with running(make_app(lab)) as pilot:
        await press(pilot, "3", "n", "=lab", "enter", *keys)
        line = wizard(pilot).form_pages["addresses"].find_line(field)
        assert line is not None
        await until(pilot, lambda: told in line.error, f"{field} says {told}")
        await press(pilot, "enter")
        assert wizard(pilot).wizard.step.id == "addresses"
        assert told in line.error


async def test_esc_keeps_the_draft_in_memory_and_in_the_file_and_ctrl_r_forgets_it(lab: Lab):
    async with running(make_app(lab)) as pilot:
        await press(pilot, "3", "n", "=half", "enter", "=10.30.0.0/24", "escape")
        assert isinstance(pilot.app.screen, NetworksScreen)
        await press(pilot, "n")
        assert wizard(pilot).wizard.step.id == "addresses"
        assert wizard(pilot).values["ipv4"] == "10.30.0.0/24"
        await press(pilot, "escape")
    remembered = load_remembered(lab.home / "data")
    assert remembered.network_draft.values == {"name": "half", "ipv4": "10.30.0.0/24"}
    async with running(make_app(lab, remembered=remembered, factory=lambda: tell(lab, {}))) as pilot:
        await press(pilot, "3", "n")
        assert wizard(pilot).name_text == "half"
        await press(pilot, "ctrl+r")
        assert (wizard(pilot).wizard.step.id, wizard(pilot).name_text) == ("segment", "")


async def test_nothing_is_written_before_the_last_enter(lab: Lab):
    async with running(make_app(lab)) as pilot:
        before = lab.service.store.revision()
        await press(pilot, "3", "n", "=lab", "enter", "=10.20.0.0/24", "enter", "enter")
        await see(pilot, "kc network create")
        assert lab.service.store.revision() == before


async def test_the_vm_wizard_makes_a_network_and_comes_back_with_it_chosen(lab: Lab):
    async with running(make_app(lab)) as pilot:
        await press(pilot, "n", "enter", "down", "enter")
        assert isinstance(pilot.app.screen, CreateNetworkWizard)
        await press(pilot, "=fresh", "enter", "=10.20.0.0/24", "enter", "enter", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, CreateVMWizard), "the VM's wizard is back")
        page = pilot.app.screen.network_page  # type: ignore[attr-defined]
        await until(pilot, lambda: page.chosen == (Nic("fresh"),), "the new network is chosen")
        await press(pilot, "escape")


async def test_esc_in_the_networks_wizard_leads_back_to_the_vms(lab: Lab):
    async with running(make_app(lab)) as pilot:
        await press(pilot, "n", "enter", "down", "enter", "escape")
        assert isinstance(pilot.app.screen, CreateVMWizard)
        assert pilot.app.screen.wizard.step.id == "network"


# --- another shape


async def test_e_changes_a_network_after_the_difference_was_shown(lab: Lab):
    lab.add(
        "Network", "lab", {"uplink": "nat", "ipv4": {"subnet": "10.20.0.0/24", "mode": "dhcp", "leaseSeconds": 900}}
    )
    async with running(make_app(lab)) as pilot:
        await press(pilot, "3", "j", "e")
        await see(pilot, "Change lab")
        assert "name" not in wizard(pilot).values
        await press(pilot, "enter", "tab", "tab", "=10.20.0.100-10.20.0.120", "enter", "=10.20.0.9", "enter")
        await see(pilot, r"\+ spec\.dns")
        page = wizard(pilot).review_page
        assert page.command_text.endswith(" 'spec.dns=[\"10.20.0.9\"]'")
        assert page.command_text.startswith("kc network set lab 'spec.ipv4.ranges=")
        await press(pilot, "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, NetworksScreen), "it is made")
        await at_rest(pilot, lab)
    spec = network(lab, "lab")
    assert spec["dns"] == ["10.20.0.9"]
    assert spec["ipv4"]["ranges"] == [{"start": "10.20.0.100", "end": "10.20.0.120"}]
    assert spec["ipv4"]["leaseSeconds"] == 900


async def test_a_change_that_changes_nothing_is_none(lab: Lab):
    lab.add("Network", "lab", {"uplink": "isolated", "guard": {"antiSpoof": "mac"}})
    async with running(make_app(lab)) as pilot:
        await press(pilot, "3", "j", "e", "enter", "enter", "enter")
        await see(pilot, "Nothing in it would change")
        await press(pilot, "enter")
        await see(pilot, "nothing would change")
        assert lab.service.get("Network", "lab", observe=False)["version"] == 1


async def test_vms_that_lose_their_line_for_a_moment_are_asked_about(lab: Lab):
    lab.add("Network", "lab", {"uplink": "isolated"})
    service = tell(lab, {})
    preview = service.preview
    service.preview = lambda document: preview(document)._replace(cuts=("web", HOSTILE))  # type: ignore[method-assign]
    written: list[Document] = []
    update = service.update

    def note(document: Document, **options: Any) -> Accepted:
        written.append(document)
        return update(document, **options)

    service.update = note  # type: ignore[method-assign]
    async with running(make_app(lab, factory=lambda: service)) as pilot:
        await press(pilot, "3", "j", "e", "enter", "enter", "tab", "tab", "=1400", "enter")
        await see(pilot, r"are without a line for a moment")
        await press(pilot, "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, ConfirmDialog), "it is asked")
        await press(pilot, "n")
        await settle(pilot)
        assert (written, isinstance(pilot.app.screen, CreateNetworkWizard)) == ([], True)
        await press(pilot, "enter", "y")
        await until(pilot, lambda: isinstance(pilot.app.screen, NetworksScreen), "it is made")
        assert [document["spec"]["mtu"] for document in written] == [1400]


async def test_what_somebody_else_changed_meanwhile_is_told_and_stays(lab: Lab):
    document = lab.add("Network", "lab", {"uplink": "isolated"})
    async with running(make_app(lab)) as pilot:
        await press(pilot, "3", "j", "e", "enter", "enter", "tab", "=a.example", "enter")
        await see(pilot, r"spec\.searchDomain")
        lab.change(document, 0, "grace", spec__mtu=1300)
        await press(pilot, "enter")
        await see(pilot, r"grace has changed it meanwhile: it is at version 2")
        assert network(lab, "lab")["searchDomain"] == ""
        await press(pilot, "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, NetworksScreen), "it is made")
        await at_rest(pilot, lab)
    assert (network(lab, "lab")["searchDomain"], network(lab, "lab")["mtu"]) == ("a.example", 1300)


async def test_the_whole_document_can_still_be_edited_as_text(lab: Lab):
    async with running(make_app(lab)) as pilot:
        await press(pilot, "3", "colon", "=edit document")
        assert isinstance(pilot.app.screen, ChooseDialog)
        await see(pilot, r"edit document +default")


async def test_a_mends_what_is_wrong_on_the_host(lab: Lab):
    mended: list[str] = []
    service = tell(lab, TOLD)

    def act(name: str, action: str, **_options: Any) -> Accepted:
        mended.append(f"{action} {name}")
        return Accepted(service.store.find("Network", name) or {}, None)

    service.act_on_network = act  # type: ignore[method-assign]
    async with running(make_app(lab, factory=lambda: service)) as pilot:
        await press(pilot, "3", "a")
        await until(pilot, lambda: isinstance(pilot.app.screen, FormDialog), "it is asked")
        await see(pilot, "dnsmasq does not run")
        await press(pilot, "enter")
        await until(pilot, lambda: mended == ["reconcile default"], "it is mended")


async def test_a_network_that_is_as_it_should_be_is_not_mended(lab: Lab):
    async with running(make_app(lab, factory=lambda: tell(lab, {}))) as pilot:
        await press(pilot, "3", "a")
        await see(pilot, "default: the host is as the document says")


async def test_keys_that_do_nothing_say_why(lab: Lab):
    lab.add("Network", "other", {"uplink": "isolated"})
    async with running(make_app(lab)) as pilot:
        await press(pilot, "3", "space", "space", "e")
        await see(pilot, "a change shows one object: take the marks away first")
        await press(pilot, "escape", "1", "a")
        await see(pilot, "mend works on networks")


# --- NICs


async def test_static_alone_leaves_the_address_to_kc_and_dhcp_can_keep_one(lab: Lab):
    lab.add("Network", "second", {"uplink": "isolated", "ipv4": {"subnet": "10.7.0.0/24", "mode": "dhcp"}})
    async with running(make_app(lab)) as pilot:
        await press(pilot, "n", "enter", "a", "right", "right", "right", "enter", "space")
        await press(pilot, "down", "a", "right", "tab", "=10.7.0.9/24", "enter", "space")
        page = pilot.app.screen.network_page  # type: ignore[attr-defined]
        assert page.chosen == (Nic("default", ipv4="static"), Nic("second", ipv4="dhcp 10.7.0.9/24"))
        await see(pilot, "static, KC chooses")
        await press(pilot, "enter", "enter", "=two", "enter")
        await see(pilot, r"--network default,ipv4=static")
        await see(pilot, r"--network second,reserve=10\.7\.0\.9/24")
        await press(pilot, "escape")


async def test_guards_and_rates_are_folded_away_until_they_are_wanted(lab: Lab):
    async with running(make_app(lab)) as pilot:
        await press(pilot, "n", "enter", "a")
        assert "Anti-spoofing" not in read_text(pilot.app)
        await press(pilot, "down", "down", "right")
        await see(pilot, r"Anti-spoofing +‹ as the network ›")
        await press(pilot, "down", "right", "right", "right", "down", "down", "down", "right", "down", "=1")
        await see(pilot, "at least 8192 bytes a second")
        await press(pilot, "=0MB", "enter", "enter", "enter", "=web-2", "enter")
        await see(pilot, r"antispoof=mac,isolated=yes,rate-receive=10MB")
        await press(pilot, "enter")
        await see(pilot, r"● web-2 +running")
    nic = lab.service.get("VM", "web-2", observe=False)["spec"]["nics"][0]
    assert (nic["guard"]["antiSpoof"], nic["guard"]["isolated"]) == ("mac", "on")
    assert nic["rateLimit"]["receiveBytesPerSecond"] == 10_000_000


async def test_a_nic_is_changed_in_the_same_form(lab: Lab):
    async with running(make_app(lab)) as pilot:
        app = app_of(pilot)
        await app.run_command("vm.change-nic")
        await until(pilot, lambda: isinstance(app.screen, FormDialog), "the form is there")
        form = app.screen
        assert isinstance(form, FormDialog)
        assert not re.search("Anti-spoofing", read_text(app))
        await press(pilot, "down", "down", "right", "down", "left")
        await see(pilot, r"Anti-spoofing +‹ off ›")
        await until(pilot, lambda: form.is_shown, "what it would do is shown")
        await see(pilot, r"antiSpoof")
        await press(pilot, "enter")
        await until(pilot, lambda: app.screen is not form, "it is made")
        await at_rest(pilot, lab)
    nic = lab.service.get("VM", "web", observe=False)["spec"]["nics"][0]
    assert nic["guard"]["antiSpoof"] == "off"
    assert nic["mac"]


async def test_a_host_that_fails_says_so_on_the_last_page_and_nothing_is_lost(lab: Lab):
    service = tell(lab, {})
    service.create = fail_create  # type: ignore[method-assign]
    async with running(make_app(lab, factory=lambda: service)) as pilot:
        await press(pilot, "3", "n", "=lab", "enter", "=10.20.0.0/24", "enter", "enter", "enter")
        await see(pilot, "it does not answer. start libvirtd")
        assert wizard(pilot).values["ipv4"] == "10.20.0.0/24"


def fail_create(_document: Document, **_options: Any) -> Accepted:
    fail_with(UnreachableError("host lab", "it does not answer", "start libvirtd"), "create")("create")
    raise AssertionError
