"""`kc serve`: this machine's KC over HTTP, on TCP and on a unix socket."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from pathlib import Path

from kc_tui.cli.arguments import Parser, parse_seconds
from kc_tui.cli.commands import Command
from kc_tui.cli.session import Session

_TEXT = """Serve this machine's KC over HTTP, until ctrl-c or SIGTERM: requests end, streams are told, and operations go
on, without the server where they take longer; a second signal ends at once. SIGHUP reads the certificate again. Without
--listen and --unix it is 127.0.0.1:8470. Other addresses want --tls-cert and --tls-key, or --insecure where something
else encrypts. Over TCP nobody gets in before there is a token (kc token create) or [auth] says who; over the unix
socket the own user and root may do everything. The log goes to stderr, one JSON object a line."""
_HIGHEST_MODE = 0o777


def _parse_mode(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= _HIGHEST_MODE:
        msg = f"{text!r} is no mode; write 0660"
        raise ArgumentTypeError(msg)
    return mode


def _add_arguments(parser: Parser) -> None:
    parser.add("--listen", metavar="HOST:PORT", action="append", default=[], help="a TCP address; port 0: a free one")
    parser.add("--unix", metavar="PATH", default="", complete="file", help="a unix socket, made by KC")
    parser.add("--unix-mode", metavar="MODE", type=_parse_mode, default=0o660, help="its mode (default: 0660)")
    parser.add("--unix-group", metavar="GROUP", default="", help="whose group it is")
    parser.add("--tls-cert", metavar="FILE", default="", complete="file", help="PEM: the certificate and its chain")
    parser.add("--tls-key", metavar="FILE", default="", complete="file", help="PEM: its key, without a password")
    parser.add(
        "--tls-client-ca", metavar="FILE", default="", complete="file", help="PEM: who signs clients' certificates"
    )
    parser.add("--insecure", action="store_true", help="other addresses than loopback without TLS")
    parser.add("--host", metavar="NAME", action="append", default=[], help="a name that requests may be for, too")
    parser.add("--log", metavar="FILE", default="", complete="file", help="log there instead of to stderr")
    parser.add(
        "--drain", metavar="S", type=parse_seconds, default=30.0, help="seconds for operations at the end (default: 30)"
    )


def _serve(session: Session, arguments: Namespace) -> int:
    from backend.api.server import ServeOptions, serve  # noqa: PLC0415 - with a web server, for this command alone
    from backend.api.tls import TlsFiles  # noqa: PLC0415 - as above

    options = ServeOptions(
        listen=tuple(arguments.listen),
        unix=arguments.unix,
        unix_mode=arguments.unix_mode,
        unix_group=arguments.unix_group,
        tls=TlsFiles(arguments.tls_cert, arguments.tls_key, arguments.tls_client_ca),
        is_insecure=arguments.insecure,
        hosts=tuple(arguments.host),
        log_file=str(Path(arguments.log).expanduser()) if arguments.log else "",
        drain_seconds=arguments.drain,
    )
    unfinished = serve(session.settings, options, session.note)
    if unfinished:
        from kc_tui.cli.worker import start_worker  # noqa: PLC0415 - most servers leave no work behind

        session.note(f"{unfinished} operations go on in the background")
        start_worker(session.profile)
    return 0


COMMANDS = {
    "": Command(
        "serve this machine's KC over HTTP",
        _add_arguments,
        _serve,
        _TEXT,
        (
            "kc serve",
            "kc serve --unix /run/kc/kc.sock --unix-group kc",
            "kc serve --listen 0.0.0.0:8470 --tls-cert kc.crt --tls-key kc.key",
        ),
        finishes=False,
    )
}
