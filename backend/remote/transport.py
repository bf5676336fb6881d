"""Requests and their answers: connections that are kept, times that are bounded, and repeats where they are safe.

The credential goes to the address of the options and nowhere else: no redirect is followed, no proxy asked.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from backend.errors import DeniedError, KCError, RefusedError, UnreachableError
from backend.remote.answers import LineLostError, check_answer, decode
from backend.remote.options import RemoteOptions
from backend.remote.tls import CONNECT_SECONDS, CertificateChangedError, describe_failure, make_context

if TYPE_CHECKING:
    import ssl

    import httpx

ANSWER_SECONDS = 30.0
LONG_SECONDS = 900.0
"""How long is waited for what reads or writes a whole store, or a whole image."""
_KEEP_SECONDS = 30.0
_REPEATABLE = ("GET", "HEAD", "OPTIONS")
_UNSENDABLE = frozenset(map(chr, (*range(32), 127)))
Query = Mapping[str, str | int | None]


class Answer(NamedTuple):
    """What came back, once it is known to be KC's and no error; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def value(self) -> Any:
        """The JSON value of the body."""
        return decode(self.body)


def quote_name(name: str) -> str:
    """Return a name as one part of a path, whatever is in it."""
    return name.replace(".", "%2E") if name in (".", "..") else quote(name, safe="")


class Transport:
    """Speaks HTTP with one remote KC; may be used from any thread."""

    def __init__(self, options: RemoteOptions) -> None:
        """Open nothing yet; raise RefusedError where a credential would go over a wire that anybody can read."""
        address = options.address
        if not (address.is_secure or address.is_own_machine or options.is_insecure):
            raise RefusedError(
                address.label,
                "plain HTTP would show credentials and consoles to whoever is on the way",
                "use https; or, on a wire that is trusted, kc profile add … --insecure",
            )
        self.options = options
        self._guard = threading.Lock()
        self._credential: bytes | None = None
        self._calls: httpx.Client | None = None
        self._streams: httpx.Client | None = None
        self._is_closed = False

    # --- what goes with every request

    def credential_header(self) -> dict[str, bytes]:
        """Return the header that carries the credential; empty where there is none."""
        with self._guard:
            if self._credential is None:
                text = self.options.find_credential().strip()
                if not _UNSENDABLE.isdisjoint(text):
                    raise RefusedError("credential", "it has signs that no header can carry", self.options.login_hint)
                self._credential = os.fsencode(text)
            return {self.options.header: self._credential} if self._credential else {}

    def make_context(self) -> ssl.SSLContext:
        """Return what judges the server's certificate; whoever uses it may change what it negotiates."""
        if not self.options.address.is_secure:
            import ssl  # noqa: PLC0415 - never asked, and costs nothing

            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return make_context(self.options.ca, self.options.fingerprint)

    def _client(self, *, streaming: bool) -> httpx.Client:
        address = self.options.address
        if address.socket and not Path(address.socket).exists():
            # The HTTP library would leave a socket open for each vain try.
            hint = "see that kc serve runs there, and the path"
            raise LineLostError(address.label, "no such file or directory", hint, transient=True)
        with self._guard:
            if self._is_closed:
                raise UnreachableError(self.options.address.label, "KC is ending")
            client = self._streams if streaming else self._calls
            if client is None:
                client = self._make_client(http2=not streaming and self.options.address.is_secure)
                if streaming:
                    self._streams = client
                else:
                    self._calls = client
            return client

    def _make_client(self, *, http2: bool) -> httpx.Client:
        import httpx  # noqa: PLC0415 - half of what a small command costs

        from backend import __version__  # noqa: PLC0415 - as above

        address = self.options.address
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=8, keepalive_expiry=_KEEP_SECONDS)
        headers = {"User-Agent": f"kc/{__version__}", "Accept": "application/json"}
        if address.is_own_machine:
            # Packing costs more than the bytes do where they leave no machine.
            headers["Accept-Encoding"] = "identity"
        return httpx.Client(
            transport=httpx.HTTPTransport(
                verify=self.make_context(), http2=http2, limits=limits, uds=address.socket or None, trust_env=False
            ),
            base_url=address.url,
            headers=headers,
            timeout=_make_timeout(ANSWER_SECONDS),
            follow_redirects=False,
            trust_env=False,
        )

    # --- calls

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Any = None,
        content: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = ANSWER_SECONDS,
    ) -> Answer:
        """Return the answer to one request; `body` is a JSON value, `content` bytes as they are.

        What may be asked twice (reading, and writing under an idempotency key) is asked again, once, where the
        connection ends before an answer. Raises the error that the answer tells of, or UnreachableError.
        """
        given = {**(headers or {})}
        if body is not None:
            import msgspec  # noqa: PLC0415 - lists send no body

            content = msgspec.json.encode(body)
            given.setdefault("Content-Type", "application/json")
        is_repeatable = method in _REPEATABLE or "Idempotency-Key" in given
        can_repeat = is_repeatable and not isinstance(content, Iterator)

        def send() -> Answer:
            request = self._build(method, path, query, content, given, seconds, streaming=False)
            response = self._client(streaming=False).send(request)
            return Answer(response.status_code, response.headers, response.content)

        answer = self._try(send, can_repeat=can_repeat, is_harmless=is_repeatable)
        check_answer(self.options, answer.status, answer.headers, answer.body)
        return answer

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = ANSWER_SECONDS,
    ) -> Iterator[httpx.Response]:
        """Open an answer that is read piece by piece; `seconds` without a piece mean that the line is lost."""
        import httpx  # noqa: PLC0415 - as above

        try:
            # Made for the server to begin at once, so that what is lost is known soon.
            request = self._build(method, path, query, None, {**(headers or {})}, seconds, streaming=True)
            response = self._client(streaming=True).send(request, stream=True)
            try:
                if response.status_code != httpx.codes.OK or "kc-api" not in response.headers:
                    response.read()
                check_answer(self.options, response.status_code, response.headers, _content_of(response))
                yield response
            finally:
                response.close()
        except httpx.HTTPError as error:
            raise self._describe(error, is_harmless=True) from error
        except (httpx.StreamError, OSError, RuntimeError) as error:
            if not self._is_closed:
                raise
            raise LineLostError(self.options.address.label, "KC is ending") from error

    def _build(
        self,
        method: str,
        path: str,
        query: Query | None,
        content: Any,
        headers: dict[str, str],
        seconds: float,
        *,
        streaming: bool,
    ) -> httpx.Request:
        given: list[tuple[bytes, bytes]] = [(name.encode(), value.encode()) for name, value in headers.items()]
        given += [(name.encode(), value) for name, value in self.credential_header().items()]
        return self._client(streaming=streaming).build_request(
            method,
            path,
            params={name: value for name, value in (query or {}).items() if value is not None} or None,
            content=content,
            headers=given,
            timeout=_make_timeout(seconds),
        )

    def _try(self, send: Callable[[], Answer], *, can_repeat: bool, is_harmless: bool) -> Answer:
        import httpx  # noqa: PLC0415 - as above

        try:
            return send()
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
            if not can_repeat:
                raise self._describe(error, is_harmless=is_harmless) from error
        except httpx.HTTPError as error:
            raise self._describe(error, is_harmless=is_harmless) from error
        try:
            return send()
        except httpx.HTTPError as error:
            raise self._describe(error, is_harmless=is_harmless) from error

    def _describe(self, error: httpx.HTTPError, *, is_harmless: bool) -> KCError:
        import httpx  # noqa: PLC0415 - as above

        where = self.options.address.label
        cause = _find_cause(error)
        if isinstance(cause, CertificateChangedError):
            return self.describe_change(cause)
        if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
            why = describe_failure(cause) if cause is not error else "no connection"
            return LineLostError(where, why, "see that kc serve runs there, and the URL", transient=True)
        hint = "" if is_harmless else "whether it was done is not known; look, then ask again"
        if isinstance(error, httpx.TimeoutException):
            return LineLostError(where, "it does not answer", hint or "try again in a moment", transient=True)
        why = "the connection ended before the answer did"
        return LineLostError(where, why, hint or "try again in a moment", transient=True)

    def describe_change(self, error: CertificateChangedError) -> KCError:
        """Return what is said of a certificate that is not the pinned one."""
        where, profile = self.options.address.label, self.options.profile
        hint = f"ask whoever runs it; kc profile remove {profile}, then add it again, takes the new one"
        return DeniedError(where, f"its certificate is not the one that was pinned: it shows {error.found}", hint)

    def close(self) -> None:
        """End every connection; whoever reads from one is told."""
        with self._guard:
            self._is_closed = True
            clients = [client for client in (self._calls, self._streams) if client is not None]
            self._calls = self._streams = None
        for client in clients:
            client.close()


def _make_timeout(seconds: float) -> httpx.Timeout:
    import httpx  # noqa: PLC0415 - as above

    return httpx.Timeout(seconds, connect=CONNECT_SECONDS)


def _content_of(response: httpx.Response) -> bytes:
    return response.content if response.is_stream_consumed else b""


def _find_cause(error: BaseException) -> BaseException:
    """Return what lies at the bottom of an error of the HTTP library."""
    while (below := error.__cause__ or error.__context__) is not None:
        error = below
    return error
