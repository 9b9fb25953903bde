"""A TCP proxy that can fall silent: it still accepts data, but forwards nothing and closes nothing. Or it delays."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from psycopg.conninfo import conninfo_to_dict, make_conninfo


class SilenceableProxy:
    """Forwards connections to `url`, its own, to the address that it was created with."""

    def __init__(self, url: str) -> None:
        parameters = conninfo_to_dict(url)
        self._target = str(parameters["host"]), int(str(parameters["port"]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._forwarding = threading.Event()
        self._forwarding.set()
        self._sockets: list[socket.socket] = [self._listener]
        self.answer_delay_seconds = 0.0
        self.url = make_conninfo(url, port=self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                for pair in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                self._forwarding.wait()
                time.sleep(self.answer_delay_seconds if is_answer else 0)
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def silent(self) -> Iterator[None]:
        self._forwarding.clear()
        try:
            yield
        finally:
            self._forwarding.set()

    def close(self) -> None:
        self._forwarding.set()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@contextmanager
def silenceable_proxy(url: str) -> Iterator[SilenceableProxy]:
    proxy = SilenceableProxy(url)
    try:
        yield proxy
    finally:
        proxy.close()
