"""A person's search on the console: what shows a restricted document leaves an entry in the audit log, others do not;
what is stopped is not searched."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.integration.test_api_control import WORKSPACE, Control, run_control

from groundplan.core.database import connect
from groundplan.core.endpoints import announce
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.testing.database import Database

SOURCE = """---
kind: source
name: handbook
path: ./handbook
sensitivity: internal
owner: ana
readers: [everyone]
"""


@contextmanager
def finding(home: Home, documents: list[str], against: list[str] | None = None) -> Iterator[list[dict[str, Any]]]:
    """A search process that finds these documents, and what others say `against` them; what of them is restricted is
    not its to say. Gives what it is asked."""
    asked: list[dict[str, Any]] = []

    class Finds(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            found = {
                "passages": [{"document": each, "text": "x"} for each in documents],
                "conflicts": [{"other_document": each, "other_says": "y"} for each in against or ()],
            }
            body = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Finds)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    announce(home, "search", f"http://127.0.0.1:{server.server_port}", "t")
    yield asked
    server.shutdown()
    server.server_close()


def with_handbook(control: Control) -> None:
    text = WORKSPACE.replace("deployments: [local]", "deployments: [local]\nsources: [handbook]") + SOURCE
    (control.workspace.parent / "handbook").mkdir(exist_ok=True)
    applied = control.ask("POST", "/api/apply", {"files": {"acme.yaml": text}, "reason": "documents"})
    assert applied.status == 200, applied.body


def test_what_is_stopped_is_not_searched_on_the_console_either(database: Database, tmp_path: Path) -> None:
    with run_control(database, tmp_path) as control, finding(control.home, []) as asked:
        with_handbook(control)
        ana, question = control.sign_in("ana@acme.example"), {"workload": "assistant", "query": "leave"}

        def searched() -> list[str]:
            assert control.ask("POST", "/api/knowledge/search", question, **ana).status == 200
            return list(asked[-1]["sources"])

        assert searched() == ["handbook"]
        for scope in ("source/handbook", "workload/assistant", "company"):
            assert control.ask("POST", "/api/kill", {"scope": scope, "reason": "r"}).status == 201
            if scope.startswith("source"):
                assert searched() == []
            else:
                assert control.ask("POST", "/api/knowledge/search", question, **ana).code == "killed"
            with connect(database.superuser, autocommit=True) as conn:
                conn.execute("UPDATE kill_switch SET lifted_at = now()")
        assert searched() == ["handbook"]


def test_who_is_shown_a_restricted_document_is_in_the_log(database: Database, tmp_path: Path) -> None:
    with run_control(database, tmp_path) as control:
        with_handbook(control)
        plain, secret = str(new_id()), str(new_id())
        with connect(database.superuser, autocommit=True) as conn:
            end = time.monotonic() + 30
            while conn.execute("SELECT 1 FROM source WHERE name = 'handbook'").fetchone() is None:
                assert time.monotonic() < end, "the source is not known"
                time.sleep(0.1)
            for id, sensitivity in ((plain, "internal"), (secret, "restricted")):
                conn.execute(
                    """INSERT INTO document (id, source, path, title, digest, sensitivity)
                       VALUES (%s, 'handbook', %s, 'A', 'x', %s)""",
                    (id, f"{sensitivity}.md", sensitivity),
                )
        ana, question = control.sign_in("ana@acme.example"), {"workload": "assistant", "query": "leave"}

        def shown(*documents: str, against: str = "") -> list[dict[str, object]]:
            with finding(control.home, list(documents), [against] if against else None):
                assert control.ask("POST", "/api/knowledge/search", question, **ana).status == 200
            return list(control.ask("GET", "/api/audit?action=knowledge.read").body["entries"])

        assert shown(plain) == []
        (entry,) = shown(plain, secret)
        assert entry["subject"] == "workload/assistant" and str(entry["actor"]).startswith("person:")
        assert entry["detail"] == {"documents": [secret]}
        assert len(shown(plain, against=secret)) == 2, "its words were shown, too"
