"""SFTP and WebDAV servers as processes of their own: `python -m tests.store_servers sftp|webdav FOLDER [PORT]`.

Each prints a line with its port (SFTP: and its public key) and serves the folder to user `reader` with the password
`secret` until its input ends. A folder `closed` is listed by its parent, but cannot be opened.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

USER, PASSWORD = "reader", "secret"


@dataclass
class Server:
    """A running server."""

    process: subprocess.Popen[str]
    port: int
    host_key: str | None

    @property
    def key(self) -> str:
        return f"{USER}:{PASSWORD}"


@contextmanager
def serve(kind: str, folder: Path, port: int = 0) -> Iterator[Server]:
    """Run a server of this kind, which is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.store_servers", kind, str(folder), str(port)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        told, _, host_key = process.stdout.readline().strip().partition(" ")
        yield Server(process, int(told), host_key or None)
    finally:
        process.kill()
        process.communicate()


async def sftp(folder: str, port: int) -> None:
    import asyncssh  # noqa: PLC0415 -- one of the two

    key = asyncssh.generate_private_key("ssh-ed25519")

    class Login(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:  # noqa: ARG002
            return True

        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == (USER, PASSWORD)

    class Files(asyncssh.SFTPServer):
        def __init__(self, channel: Any) -> None:
            super().__init__(channel, chroot=folder.encode())

        def scandir(self, path: bytes) -> Any:
            if path.endswith(b"/closed"):
                raise asyncssh.SFTPNoSuchFile("there is none")
            return super().scandir(path)

    server = await asyncssh.listen("127.0.0.1", port, server_host_keys=[key], server_factory=Login, sftp_factory=Files)
    print(server.get_port(), key.export_public_key().decode().strip(), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def webdav(folder: str, port: int) -> None:
    from socketserver import ThreadingMixIn  # noqa: PLC0415 -- one of the two
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server  # noqa: PLC0415 -- one of the two

    from wsgidav.wsgidav_app import WsgiDAVApp  # noqa: PLC0415 -- one of the two

    class Threads(ThreadingMixIn, WSGIServer):
        daemon_threads = True

    class Quiet(WSGIRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    app = WsgiDAVApp(
        {
            "provider_mapping": {"/": folder},
            "simple_dc": {"user_mapping": {"*": {USER: {"password": PASSWORD}}}},
            "verbose": 0,
        }
    )

    def closing(environ: Any, start: Any) -> Any:
        if environ["REQUEST_METHOD"] == "PROPFIND" and environ["PATH_INFO"].rstrip("/").endswith("/closed"):
            start("404 Not Found", [("Content-Length", "0")])
            return [b""]
        return app(environ, start)

    server = make_server("127.0.0.1", port, closing, Threads, Quiet)
    print(server.server_port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    if sys.argv[1] == "sftp":
        asyncio.run(sftp(sys.argv[2], int(sys.argv[3])))
    else:
        webdav(sys.argv[2], int(sys.argv[3]))
