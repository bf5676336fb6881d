"""`kc ssh-console install`: a user, a program and a part of sshd's configuration, each only where it is not there."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from backend.errors import ConflictError, DeniedError, FailedError, NotFoundError, RefusedError
from backend.text import sanitise
from kc_tui.cli.ssh_lines import list_places
from kc_tui.cli.sshd_config import KEYS_PROGRAM, list_settings, write_config, write_wrapper

_GROUP: Final = "libvirt"
_SECONDS: Final = 30
_SYSTEM_PATH: Final = "/usr/sbin:/sbin:/usr/bin:/bin"
_COMMAND: Final = "kc ssh-console install"
_USUAL_VARIABLES: Final = ("LANG", "LC_*", "COLORTERM", "NO_COLOR")
_NAME_FIELD, _UID_FIELD = 0, 2


class Plan(NamedTuple):
    """What is asked for: which user, where that user's KC is, and below which folder the system lies."""

    user: str
    home: str
    root: str = "/"

    def at(self, path: str) -> Path:
        """Return where a path of the system is."""
        return Path(self.root) / path.lstrip("/")

    @property
    def config(self) -> Path:
        """The part of sshd's configuration."""
        return self.at("/etc/ssh/sshd_config.d/kc.conf")


class Step(NamedTuple):
    """One thing to do: what is said of it, how, and the command that does the same by hand."""

    text: str
    do: Callable[[], object]
    by_hand: str


def install(plan: Plan, *, dry: bool, report: Callable[[str], object]) -> list[str]:
    """Do what is not done yet, and return what it was, in lines; with `dry` only say so.

    Raises DeniedError, with the commands to run, for whoever is not root; RefusedError where sshd's own test does not
    pass, or would serve something else than is meant.
    """
    _check(plan)
    steps = list(_list_steps(plan))
    if dry:
        for step in steps:
            report(f"would {step.text}: {step.by_hand}")
        return [step.text for step in steps]
    if os.geteuid() != 0 and steps:
        commands = "; ".join(step.by_hand for step in steps)
        raise DeniedError(_COMMAND, "only root can do it", f"run it with sudo, or do by hand: {commands}")
    for step in steps:
        step.do()
        report(f"done: {step.text}")
    for pattern in _check_effect(plan):
        report(f"warning: sshd takes {pattern} of a client's environment (AcceptEnv): KC ignores it, sh may not")
    if not steps:
        report("everything was there already")
    report("sshd takes it up with: systemctl reload ssh")
    report(f"next: KC_HOME={plan.home} kc ssh-console keys --add FILE --subject NAME")
    return [step.text for step in steps]


def _check(plan: Plan) -> None:
    if not plan.at("/etc/ssh/sshd_config").exists():
        raise NotFoundError("sshd", f"there is no {plan.at('/etc/ssh/sshd_config')}", "apt install openssh-server")
    if not plan.home.startswith("/"):
        raise RefusedError("--home", "it is no whole path", "begin it with /")
    if _find_entry(plan, "/etc/passwd", plan.user)[_UID_FIELD : _UID_FIELD + 1] == ["0"]:
        raise RefusedError(f"user {plan.user}", "it is root", "name a user who is nobody else")


def _list_steps(plan: Plan) -> Iterator[Step]:
    prefix = [] if plan.root == "/" else ["--prefix", plan.root]
    if not _find_entry(plan, "/etc/passwd", plan.user):
        # No password fits `*`, and sshd does not take it for a locked account; sh is what sshd hands KC's command to.
        words = ["useradd", *prefix, "--system", "--user-group", "--password", "*", "--shell", "/bin/sh"]
        words += ["--home-dir", plan.home, "--no-create-home", "--comment", "KC over SSH", plan.user]
        yield _run_step(f"make the user {plan.user}, without a password", words)
    if not plan.at(plan.home).is_dir():
        words = ["install", "-d", "-m", "0700", "-o", plan.user, "-g", plan.user, str(plan.at(plan.home))]
        yield Step(f"make the folder {plan.home}", lambda: _make_home(plan), shlex.join(words))
    members = _find_entry(plan, "/etc/group", _GROUP)
    if members and plan.user not in members[-1].split(","):
        words = ["usermod", *prefix, "--append", "--groups", _GROUP, plan.user]
        yield _run_step(f"add {plan.user} to the group {_GROUP}", words)
    wrapper = write_wrapper(_list_places(plan))
    if not _is_as(plan.at(KEYS_PROGRAM), wrapper, 0o755):
        by_hand = f"install -D -m 0755 FILE {KEYS_PROGRAM}"
        yield Step(f"write {KEYS_PROGRAM}", lambda: _write_program(plan, wrapper), by_hand)
    config = write_config(plan.user, KEYS_PROGRAM)
    if not _is_as(plan.config, config, 0o644):
        by_hand = f"kc ssh-console print --user {plan.user} > {plan.config} && sshd -t"
        yield Step(f"write {plan.config}", lambda: _write_config(plan, config), by_hand)


def _list_places(plan: Plan) -> list[str]:
    return [f"KC_HOME={plan.home}", *(item for item in list_places(os.environ) if not item.startswith("KC_HOME="))]


def _find_entry(plan: Plan, file: str, name: str) -> list[str]:
    """Return the fields of a user or group; nothing where there is none."""
    try:
        lines = plan.at(file).read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []
    entries = (line.split(":") for line in lines)
    return next((fields for fields in entries if fields[_NAME_FIELD] == name), [])


def _is_as(path: Path, text: str, mode: int) -> bool:
    try:
        status = path.lstat()
        return stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == mode and path.read_text() == text
    except (OSError, UnicodeDecodeError):
        return False


# --- doing it


def _run_step(text: str, words: list[str]) -> Step:
    return Step(text, lambda: _run(words), shlex.join(words))


def _run(words: list[str]) -> str:
    """Return what a program of the system prints; raise FailedError with its own words where it fails."""
    program = shutil.which(words[0], path=_SYSTEM_PATH)
    if program is None:
        raise NotFoundError(f"program {words[0]}", "it is not installed", "apt install openssh-server passwd")
    done = subprocess.run(
        [program, *words[1:]], capture_output=True, text=True, timeout=_SECONDS, check=False, stdin=subprocess.DEVNULL
    )  # fmt: skip
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"it ended with {done.returncode}"
        raise FailedError(words[0], sanitise(said, 400), "nothing after it was done")
    return done.stdout


def _make_home(plan: Plan) -> None:
    folder = plan.at(plan.home)
    folder.mkdir(mode=0o700, parents=True)
    entry = _find_entry(plan, "/etc/passwd", plan.user)
    os.chown(folder, int(entry[_UID_FIELD]), int(entry[_UID_FIELD + 1]))


def _write_program(plan: Plan, text: str) -> None:
    path = plan.at(KEYS_PROGRAM)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    for folder in [Path(KEYS_PROGRAM), *Path(KEYS_PROGRAM).parents][1:]:
        status = plan.at(str(folder)).stat()
        if plan.root == "/" and (status.st_uid != 0 or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
            raise RefusedError(f"folder {folder}", "sshd wants it to be root's alone", f"chmod go-w {folder}")
    _replace(path, text, 0o755)


def _write_config(plan: Plan, text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        part, whole = Path(folder, "kc.conf"), Path(folder, "sshd_config")
        part.write_text(text)
        # First, as what is said first counts; what is there of it already comes after, and counts no more.
        whole.write_text(f"Include {part}\nInclude {plan.at('/etc/ssh/sshd_config')}\n")
        try:
            _run(["sshd", "-t", "-f", str(whole)])
        except FailedError as error:
            raise RefusedError("sshd -t", error.why, f"{plan.config} was not written") from error
    plan.config.parent.mkdir(mode=0o755, exist_ok=True)
    _replace(plan.config, text, 0o644)


def _replace(path: Path, text: str, mode: int) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, mode)
            file.write(text)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _check_effect(plan: Plan) -> list[str]:
    """Ask sshd itself what it would do for the user; take the part away again where that is something else.

    Returns what it takes of a client's environment beyond the usual.
    """
    config = plan.at("/etc/ssh/sshd_config")
    asked = f"user={plan.user},host=localhost,addr=127.0.0.1"
    lines = _run(["sshd", "-T", "-f", str(config), "-C", asked]).splitlines()
    found = {keyword.lower(): value for keyword, _, value in (line.partition(" ") for line in lines)}
    for keyword, value in list_settings(plan.user, KEYS_PROGRAM):
        if _is_effective(found.get(keyword.lower(), ""), value):
            continue
        plan.config.unlink(missing_ok=True)
        why = f"{keyword} is {sanitise(found.get(keyword.lower()) or 'not set', 80)} for {plan.user}, not {value}"
        hint = f"have {config} include {plan.config.parent}/*.conf before everything else; {plan.config} was removed"
        raise ConflictError("sshd", why, hint)
    if found.get("permituserenvironment", "no") != "no":
        raise ConflictError("sshd", "PermitUserEnvironment is on for everybody", f"take it out of {config}")
    accepted = [value for keyword, _, value in (line.partition(" ") for line in lines) if keyword == "acceptenv"]
    return [sanitise(value, 40) for value in accepted if value not in _USUAL_VARIABLES]


def _is_effective(found: str, wanted: str) -> bool:
    # sshd leaves out some that are none, and shows what is off for none of its own reasons alike.
    return found == wanted or (wanted == "none" and not found)
