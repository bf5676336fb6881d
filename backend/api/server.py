"""The server: the application on its sockets, from the first request to the last, and what becomes of operations."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import uvicorn

from backend.api.app import Application, create_app
from backend.api.gate import Options
from backend.api.listeners import DEFAULT_ADDRESS, Listener, bind_tcp, bind_unix, notify, take_inherited
from backend.api.logs import configure_logs, remove_logs
from backend.api.tls import LOOK_SECONDS, Tls, TlsFiles
from backend.api.wire import Protocol
from backend.errors import KCError, RefusedError, UsageError
from backend.local.opening import open_service
from backend.model.kinds import OPERATION, TOKEN

if TYPE_CHECKING:
    from backend.auth.chain import Chain
    from backend.local.service import LocalService
    from backend.settings import Settings

GRACE_SECONDS: Final = 10
DRAIN_SECONDS: Final = 30.0
_POLL_SECONDS = 0.2
_KEEP_ALIVE_SECONDS = 75
_BACKLOG = 1024
_UNFINISHED = "status.state notin (succeeded,failed,cancelled)"
_log = logging.getLogger("kc.server")


class ServeOptions(NamedTuple):
    """What `kc serve` was asked for; without any address it is the default one.

    `drain_seconds` are given to operations that still run at the end; others go on with those that take longer.
    """

    listen: tuple[str, ...] = ()
    unix: str = ""
    unix_mode: int = 0o660
    unix_group: str = ""
    tls: TlsFiles = TlsFiles()
    is_insecure: bool = False
    hosts: tuple[str, ...] = ()
    log_file: str = ""
    drain_seconds: float = DRAIN_SECONDS


class _Uvicorn(uvicorn.Server):
    """uvicorn on sockets of ours, each with TLS or without, and without its way with signals."""

    def __init__(self, config: uvicorn.Config, listeners: Sequence[Listener], tls: Tls | None) -> None:
        super().__init__(config)
        self.accepting = asyncio.Event()
        self._listeners = listeners
        self._tls = tls

    async def startup(self, sockets: Any = None) -> None:
        """Begin to accept."""
        del sockets
        await self.lifespan.startup()
        loop = asyncio.get_running_loop()

        def make_protocol() -> asyncio.Protocol:
            return Protocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

        self.servers = [
            await loop.create_server(
                make_protocol,
                sock=listener.socket,
                ssl=self._tls.context if self._tls and listener.is_secure else None,
                backlog=_BACKLOG,
            )
            for listener in self._listeners
        ]
        self.started = True
        self.accepting.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Leave signals to whoever runs the server."""
        yield


class Server:
    """An application on its sockets; `run` it on a loop, `stop` it from anywhere."""

    def __init__(self, application: Application, listeners: Sequence[Listener], tls: Tls | None = None) -> None:
        self.application = application
        self.listeners = list(listeners)
        options = application.options
        config = uvicorn.Config(
            application, http=Protocol, ws="websockets-sansio", lifespan="off", log_config=None, access_log=False,
            proxy_headers=False, server_header=False, timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=GRACE_SECONDS, ws_max_size=1 << 20, ws_per_message_deflate=False,
            limit_concurrency=2 * (options.concurrency + options.streams) + options.undecided, loop="none",
        )  # fmt: skip
        self._uvicorn = _Uvicorn(config, self.listeners, tls)
        self._tls = tls
        self._stops = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until it is stopped; `ready` is called once it accepts."""
        self._loop = asyncio.get_running_loop()
        await self.application.open()
        watcher = asyncio.create_task(self._watch_files())
        told = asyncio.create_task(self._tell(ready))
        try:
            await self._uvicorn.serve()
        finally:
            for task in (watcher, told):
                task.cancel()
            await asyncio.gather(watcher, told, return_exceptions=True)
            await self.application.close()
            await self.application.server.chain.close()
            for listener in self.listeners:
                listener.close()

    async def _tell(self, ready: Callable[[], None]) -> None:
        await self._uvicorn.accepting.wait()
        ready()

    async def _watch_files(self) -> None:
        while self._tls is not None:
            await asyncio.sleep(LOOK_SECONDS)
            await asyncio.to_thread(self._tls.reload)

    def reload(self) -> None:
        """Read the certificate again; settings of authenticators are followed by themselves."""
        if self._tls is not None:
            self._tls.reload(force=True)

    def stop(self) -> None:
        """Accept no more, end streams, and finish what is being answered; a second call ends at once."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        self._stops += 1
        self.application.end()
        self._uvicorn.should_exit = True
        self._uvicorn.force_exit = self._stops > 1

    @property
    def is_forced(self) -> bool:
        """Whether it was stopped twice."""
        return self._stops > 1


def build_application(service: LocalService, settings: Settings, options: Options = Options()) -> Application:  # noqa: B008 - a tuple
    """Return the application on a service of this process, with the chain that the settings ask for."""
    from backend.api.sessions import Sessions  # noqa: PLC0415 - kept near its only use
    from backend.auth.keys import open_master_key  # noqa: PLC0415 - as above
    from backend.auth.opening import load_auth_settings, open_chain  # noqa: PLC0415 - as above

    found = load_auth_settings(settings)
    chain: Chain = open_chain(settings, service.store, service.audit)
    serve_table = settings.serve
    forwarded = serve_table.get("forwarded", "")
    unknown = sorted(set(serve_table) - {"forwarded", "openMetrics"})
    if unknown or forwarded not in ("", "nginx", "traefik"):
        what, why = f"settings {settings.paths.config_file}", f"[serve] has {unknown or forwarded}"
        raise RefusedError(what, why, 'known are forwarded = "nginx" or "traefik", and openMetrics = true')
    options = options._replace(
        header=found.header,
        trusted_proxies=found.trusted_proxies,
        forwarded=forwarded,
        open_metrics=serve_table.get("openMetrics") is True,
    )
    # A file tells its revision in microseconds; what is elsewhere is followed by its feed.
    revision = service.store.revision if service.store.url.startswith("tinydb:") else None
    sessions = Sessions(service.store, open_master_key(settings), chain)
    uploads = settings.paths.data / "uploads"
    return create_app(
        service, chain, options, uploads=uploads, revision=revision, sessions=sessions, audit=service.audit
    )


def serve(settings: Settings, options: ServeOptions, announce: Callable[[str], None]) -> int:
    """Serve until a signal says to end; return how many operations others are to go on with.

    `announce` is told a line where it listens. Raises KCErrors for what cannot be served.
    """
    if settings.url:
        raise UsageError("kc serve", f"profile {settings.profile} is a KC elsewhere", "serve a KC of this machine")
    tls = Tls(options.tls) if any(options.tls) else None
    listeners = _bind(options, is_secure=tls is not None)
    handler = configure_logs(options.log_file)
    try:
        service: Any = open_service(settings)
        try:
            _serve_on(service, settings, options, listeners, tls, announce)
            return _count_unfinished(service)
        finally:
            service.close()
    finally:
        for listener in listeners:
            listener.close()
        remove_logs(handler)


def _bind(options: ServeOptions, *, is_secure: bool) -> list[Listener]:
    listeners = take_inherited(is_secure=is_secure, is_insecure=options.is_insecure)
    try:
        addresses = options.listen or (() if options.unix or listeners else (DEFAULT_ADDRESS,))
        for text in addresses:
            listeners += bind_tcp(text, is_secure=is_secure, is_insecure=options.is_insecure)
        if options.unix:
            path = Path(options.unix).expanduser().absolute()
            listeners.append(bind_unix(path, mode=options.unix_mode, group=options.unix_group))
    except KCError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _serve_on(
    service: LocalService,
    settings: Settings,
    options: ServeOptions,
    listeners: list[Listener],
    tls: Tls | None,
    announce: Callable[[str], None],
) -> None:
    import uvloop  # noqa: PLC0415 - a server's alone

    server = Server(build_application(service, settings, Options(hosts=options.hosts)), listeners, tls)
    resuming = threading.Thread(target=_resume, args=(service,), name="resume", daemon=True)

    def ready() -> None:
        # What is there now stays: looking through it again and again would only hold requests up.
        gc.collect()
        gc.freeze()
        announce(f"listening on {', '.join(listener.label for listener in listeners)}")
        hint = _find_missing_access(service, settings, listeners)
        if hint:
            announce(hint)
        notify("READY=1")
        resuming.start()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, server.stop)
        loop.add_signal_handler(signal.SIGHUP, server.reload)
        await server.run(ready)
        notify("STOPPING=1")
        deadline = time.monotonic() + options.drain_seconds
        while not server.is_forced and time.monotonic() < deadline:
            if not await asyncio.to_thread(_count_unfinished, service):
                break
            await asyncio.sleep(_POLL_SECONDS)

    # The loop is not to wait long for a thread that computes.
    sys.setswitchinterval(0.001)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def _resume(service: LocalService) -> None:
    """Take up what an earlier process left, and stay at it; what hinders that is told in the log."""
    try:
        service.resume(wait=False)
    except KCError as error:
        _log.warning("interrupted operations go on later: %s", error)


def _count_unfinished(service: LocalService) -> int:
    """Return how many operations have not ended, but for those that wait for a host that does not answer."""
    try:
        found = service.list_documents(OPERATION.name, selector=_UNFINISHED).items
    except KCError:
        return 0
    return sum(1 for operation in found if not operation["status"].get("parked"))


def _find_missing_access(service: LocalService, settings: Settings, listeners: Sequence[Listener]) -> str:
    """Return what to do where nobody could be let in over TCP yet, else an empty text."""
    is_reachable = any(not listener.label.startswith("unix:") for listener in listeners)
    if not is_reachable or "chain" in settings.auth:
        return ""
    if service.list_documents(TOKEN.name, limit=1).items:
        return ""
    return "nobody can get in over TCP yet: kc token create admin --god --expires 30d makes a token"
