"""Fetching a file that somebody else serves: bounded in size and time, and never led into our own network.

The operator's own URL may lie anywhere; where a redirect leads to must be a public address, checked on the very address
that is then connected to. HTTPS only, unless told otherwise; certificates are always checked.
"""

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

from callwarden.cli.failure import CliMisuse, Failure

BYTES_MAX: Final = 64 * 1024 * 1024  # what call-admission takes of a list
TIMEOUT_S: Final = 120.0  # for all of it
STEP_TIMEOUT_S: Final = 20.0  # for each thing that is waited for
REDIRECTS_MAX: Final = 5
_CHUNK_BYTES: Final = 256 * 1024
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class DownloadBounds:
    """What a download may take."""

    bytes_max: int = BYTES_MAX
    timeout_s: float = TIMEOUT_S


def fetch(url: str, *, insecure: bool = False, bounds: DownloadBounds | None = None) -> bytes:
    """The file. `insecure`: plain HTTP is taken, too. Raises Misuse for a URL that isn't one, Failure otherwise."""
    bounds = bounds or DownloadBounds()
    deadline_s = time.monotonic() + bounds.timeout_s
    is_private_ok = True
    for _ in range(REDIRECTS_MAX + 1):
        parts = _parse(url, insecure)
        connection = _connect(parts, deadline_s, is_private_ok=is_private_ok)
        # A server that sends a byte now and then would never let a single read run out of time.
        watch = threading.Timer(max(0.0, deadline_s - time.monotonic()), _break, (connection,))
        watch.daemon = True
        watch.start()
        try:
            answer = _ask(connection, parts)
            if answer.status not in _REDIRECTS:
                if answer.status != http.client.OK:
                    raise Failure(f"{_shown(url)}: the server answers {answer.status} {answer.reason}")
                return _read(connection, answer, url, bounds, deadline_s)
            where = answer.getheader("Location")
            if not where:
                raise Failure(f"{_shown(url)}: a redirect that leads nowhere")
            origin = _origin(parts)
            url = urljoin(url, where)
            # To another path of the same server it may send us wherever that is.
            is_private_ok = is_private_ok and _origin(_parse(url, insecure)) == origin
        except TimeoutError as error:
            _left(deadline_s)
            raise Failure(f"{_shown(url)}: no answer within {STEP_TIMEOUT_S:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            _left(deadline_s)
            raise Failure(f"{_shown(url)}: {_reason(error)}") from error
        finally:
            watch.cancel()
            connection.close()
    raise Failure(f"{_shown(url)}: more than {REDIRECTS_MAX} redirects")


def _parse(url: str, insecure: bool) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise CliMisuse(f"not a URL: {url[:200]!r}") from error
    if not url.isascii() or not url.isprintable() or " " in url:
        raise CliMisuse(f"not a URL: {url[:200]!r} (percent-encode what isn't ASCII)")
    if parts.scheme not in ("https", "http") or not parts.hostname or port == 0:
        raise CliMisuse(f"not a URL: {url[:200]!r} (write https://host/file.csv)")
    if parts.scheme == "http" and not insecure:
        raise CliMisuse(f"{_shown(url)}: HTTP can be changed on the way; --insecure takes it nevertheless")
    if parts.username is not None:
        raise CliMisuse("credentials in a URL end up in logs: download the file yourself and give its name")
    return parts


def _connect(parts: SplitResult, deadline_s: float, *, is_private_ok: bool) -> http.client.HTTPConnection:
    host, port = str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Failure(f"{host}: no address is known for this name") from error
    addresses = [str(info[4][0]) for info in found]
    if not is_private_ok:
        for address in addresses:
            if not is_public(address):
                raise Failure(f"{host}: a redirect led to {address}, which isn't a public address")
    context = ssl.create_default_context() if parts.scheme == "https" else None
    last: OSError | None = None
    for address in addresses:
        try:
            # To the address that was looked at: the name could mean another one a moment later.
            opened = socket.create_connection((address, port), timeout=_left(deadline_s))
            break
        except OSError as error:
            last = error
    else:
        raise Failure(f"{host}: {_reason(last) if last is not None else 'no address'}")
    connection = http.client.HTTPConnection(host, port, timeout=STEP_TIMEOUT_S)
    opened.settimeout(_left(deadline_s))
    try:
        connection.sock = opened if context is None else context.wrap_socket(opened, server_hostname=host)
    except OSError as error:  # ssl's errors are some
        opened.close()
        raise Failure(f"{host}: {_reason(error)}") from error
    return connection


def is_public(address: str) -> bool:
    """Whether anybody may be at that address: not ours, not this machine's, not a link's."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_global) and not parsed.is_multicast


def _ask(connection: http.client.HTTPConnection, parts: SplitResult) -> http.client.HTTPResponse:
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = str(parts.hostname) if parts.port is None else f"{parts.hostname}:{parts.port}"
    connection.request("GET", path, headers={"Host": host, "User-Agent": "callwarden", "Accept-Encoding": "identity"})
    return connection.getresponse()


def _read(
    connection: http.client.HTTPConnection,
    answer: http.client.HTTPResponse,
    url: str,
    bounds: DownloadBounds,
    deadline_s: float,
) -> bytes:
    too_big = f"{_shown(url)}: is bigger than {bounds.bytes_max:,} bytes"
    if (answer.length or 0) > bounds.bytes_max:
        raise Failure(too_big)
    content = bytearray()
    while True:
        if connection.sock is not None:
            connection.sock.settimeout(_left(deadline_s))
        chunk = answer.read1(_CHUNK_BYTES)
        if not chunk:
            break
        content += chunk
        if len(content) > bounds.bytes_max:
            raise Failure(too_big)
        _left(deadline_s)
    if answer.length:
        raise Failure(f"{_shown(url)}: the server broke off")
    return bytes(content)


def _break(connection: http.client.HTTPConnection) -> None:
    with suppress(OSError):
        if connection.sock is not None:
            connection.sock.shutdown(socket.SHUT_RDWR)


def _left(deadline_s: float) -> float:
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise Failure("the download takes too long")
    return min(left_s, STEP_TIMEOUT_S)


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port


def _shown(url: str) -> str:
    """Without its query, which may hold a key."""
    return url.partition("?")[0][:200]


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate isn't trusted: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
