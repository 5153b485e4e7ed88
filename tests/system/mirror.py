"""The mirrors of a data set as this machine plays them: a proxy that answers for them by TLS."""

import contextlib
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from pipeline import NotTried


class Answer(NamedTuple):
    """What is sent of a file, and how many bytes are announced: fewer, and the line goes dead."""

    body: bytes
    announced: int


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    context: ssl.SSLContext
    answers: Mapping[str, Answer]
    asked: list[str]

    def do_CONNECT(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            self.connection = self.context.wrap_socket(self.connection, server_side=True)
        except OSError:
            # Who asks does not take the certificate, or is gone.
            self.close_connection = True
            return
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", buffering=0)
        self.close_connection = False

    def do_GET(self) -> None:
        self.asked.append(f"{self.headers['Host']}{self.path}")
        name = Path(self.path).name
        answer = self.answers.get(name, Answer(b"", 0))
        self.send_response(200 if name in self.answers else 404)
        self.send_header("Content-Length", str(answer.announced))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(answer.body)
        self.close_connection = len(answer.body) < answer.announced

    def finish(self) -> None:
        super().finish()
        self.connection.close()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def mirrors(
    addresses: tuple[str, ...], answers: Mapping[str, Answer], folder: Path
) -> Iterator[tuple[dict[str, str], list[str]]]:
    """The environment in which `addresses` lead here, and the list of what is asked of them.

    Certificate and key are made in `folder`. Raises NotTried without openssl.
    """
    certificate = _certificate(addresses, folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, folder / "key.pem")
    asked: list[str] = []
    members = {"context": context, "answers": answers, "asked": asked}
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Proxy", (_Proxy,), members)) as server:
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        proxy = f"http://127.0.0.1:{server.server_port}"
        environment = {"HTTPS_PROXY": proxy, "https_proxy": proxy}
        environment |= {"REQUESTS_CA_BUNDLE": str(certificate), "NO_PROXY": "", "no_proxy": ""}
        try:
            yield environment, asked
        finally:
            server.shutdown()


def _certificate(addresses: tuple[str, ...], folder: Path) -> Path:
    if not shutil.which("openssl"):
        raise NotTried("openssl, which makes a certificate, is not installed")
    path = folder / "certificate.pem"
    names = ",".join(f"DNS:{urlsplit(address).hostname}" for address in addresses)
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=mirrors of this machine", "-addext", f"subjectAltName={names}"]
    command += ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path
