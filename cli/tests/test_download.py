"""Lists are fetched within bounds, and no redirect leads into a private network."""

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from callwarden.cli import download
from callwarden.cli.download import DownloadBounds, fetch, is_public
from callwarden.cli.failure import CliMisuse, Failure


class Server(http.server.BaseHTTPRequestHandler):
    """Answers by path."""

    def do_GET(self) -> None:
        if self.path == "/numbers.csv":
            self.answer(200, b"number\n4930123456\n")
        elif self.path == "/moved":
            self.answer(302, b"", Location="/numbers.csv")
        elif self.path == "/round":
            self.answer(302, b"", Location="/round")
        elif self.path.startswith("/to/"):
            self.answer(302, b"", Location="http://" + self.path.removeprefix("/to/"))
        elif self.path == "/big":
            self.answer(200, b"4" * 2_000)
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"4" * 2_000)
        elif self.path == "/short":
            self.answer(200, b"4930", **{"Content-Length": "400"})
        else:
            self.answer(404, b"")

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_file_is_fetched_also_after_a_redirect_of_its_own_server(server: str) -> None:
    for path in ("/numbers.csv", "/moved"):
        assert fetch(server + path, insecure=True) == b"number\n4930123456\n"


def test_plain_http_is_taken_only_if_told_so(server: str) -> None:
    with pytest.raises(CliMisuse, match="--insecure"):
        fetch(f"{server}/numbers.csv")


@pytest.mark.parametrize("target", ["127.0.0.1:1", "localhost:1", "10.0.0.1", "169.254.169.254/latest", "[::1]:1"])
def test_a_redirect_into_a_private_network_is_not_followed(server: str, target: str) -> None:
    with pytest.raises(Failure, match=r"isn't a public address|no address is known"):
        fetch(f"{server}/to/{target}", insecure=True)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/none", "answers 404"),
        ("/round", "more than 5 redirects"),
        ("/big", "bigger than"),
        ("/endless", "bigger than"),
        ("/short", "broke off"),
    ],
)
def test_what_is_wrong_with_a_download_is_said(server: str, path: str, why: str) -> None:
    with pytest.raises(Failure, match=why):
        fetch(server + path, insecure=True, bounds=DownloadBounds(bytes_max=1_000))


@contextmanager
def silent() -> Iterator[str]:
    """A server that takes a connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/x"


def test_a_server_that_says_nothing_ends_the_download_at_its_time() -> None:
    with silent() as url, pytest.raises(Failure, match="takes too long"):
        fetch(url, insecure=True, bounds=DownloadBounds(timeout_s=0.2))


def test_a_certificate_that_nobody_trusts_is_refused(server: str) -> None:
    with pytest.raises(Failure, match=server.removeprefix("http://").partition(":")[0]):
        fetch(server.replace("http:", "https:") + "/numbers.csv")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("192.168.0.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("224.0.0.1", False),
    ],
)
def test_what_a_public_address_is(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_the_bounds_are_those_of_the_service() -> None:
    from callwarden.call_admission.lists.core.list_file import BYTES_MAX

    assert download.BYTES_MAX == BYTES_MAX
