"""`groundplan-witness`: a witness as a process of its own, for another machine and another owner than the log's.

It needs a folder, a name and the public keys of the logs it may sign for; no database and no HOME. C2SP tlog-witness:
POST /add-checkpoint. Put TLS in front of it where the network is not trusted: a signature speaks for itself, but
silence does not.
"""

from __future__ import annotations

import argparse
import base64
import sys
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from groundplan.core.audit.checkpoint import parse_key
from groundplan.core.audit.witness import MAX_BYTES, Witness, parse_request
from groundplan.core.errors import Conflict, Denied, GroundplanError, Invalid, NotFound
from groundplan.core.home import write_atomically

STATUS: dict[type[GroundplanError], HTTPStatus] = {
    NotFound: HTTPStatus.NOT_FOUND,
    Denied: HTTPStatus.FORBIDDEN,
    Conflict: HTTPStatus.CONFLICT,
}
SOCKET_SECONDS = 10


def witness_key(folder: Path) -> Ed25519PrivateKey:
    """The witness's key in `folder`, generated (0600) at the first start."""
    path = folder / "witness.key"
    if not path.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, base64.b64encode(Ed25519PrivateKey.generate().private_bytes_raw()) + b"\n")
    return Ed25519PrivateKey.from_private_bytes(base64.b64decode(path.read_bytes()))


def serve(witness: Witness, host: str, port: int) -> ThreadingHTTPServer:
    """Return a bound server; call `serve_forever` to run it."""

    class WitnessHandler(BaseHTTPRequestHandler):
        timeout = SOCKET_SECONDS
        server_version = "groundplan-witness"

        def do_POST(self) -> None:
            if self.path != "/add-checkpoint":
                self._answer(HTTPStatus.NOT_FOUND, b"POST /add-checkpoint\n")
                return
            length = self.headers.get("content-length", "")
            if not length.isdigit() or int(length) > MAX_BYTES:
                self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"at most 64 KiB\n")
                return
            try:
                line = witness.add(parse_request(self.rfile.read(int(length))))
            except GroundplanError as error:
                old = error.code == "witness_old"
                status = STATUS.get(type(error), HTTPStatus.UNPROCESSABLE_ENTITY)
                self._answer(status, f"{error.message}\n".encode(), "text/x.tlog.size" if old else "text/plain")
            else:
                self._answer(HTTPStatus.OK, line.encode().encode())

        def _answer(self, status: HTTPStatus, body: bytes, kind: str = "text/plain") -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *values: object) -> None:
            sys.stderr.write(f"{self.log_date_time_string()} {format % values}\n")

    return ThreadingHTTPServer((host, port), WitnessHandler)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `groundplan-witness`."""
    parser = argparse.ArgumentParser(prog="groundplan-witness", description="Co-sign the checkpoints of audit logs.")
    parser.add_argument("--folder", type=Path, required=True, help="its key, and what it signed last of each log")
    parser.add_argument("--name", required=True, help="such as witness.example/acme; stands in every signature")
    parser.add_argument("--log", action="append", default=[], type=Path, help="log.pub of a log it may sign for")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8610)
    options = parser.parse_args(arguments)
    try:
        if not options.name.strip() or set(options.name) & set("+ \n\t"):
            raise Invalid("no name of a witness", code="witness_name", hint="Write it without spaces and plus signs.")
        logs = [parse_key(path.read_text("ascii")) for path in options.log]
        witness = Witness(options.folder / "logs", options.name, witness_key(options.folder), logs)
        server = serve(witness, options.host, options.port)
    except (GroundplanError, OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 65
    print(f"{witness.public.encode()} on http://{options.host}:{server.server_address[1]}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        return 0
    finally:
        server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
