"""A router is learned from a workload's own calls: their kept questions, what judges compared, and what people said."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from psycopg import Connection
from tests.integration.nursery import run_command
from tests.integration.test_api_control import Control, run_control

from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.database import connect
from groundplan.core.ids import new_id
from groundplan.economics.routing.versions import registry
from groundplan.gateway.journal import ledger_store
from groundplan.gateway.telemetry.content_text import kept_document
from groundplan.identity import service as identity
from groundplan.ledger import content_store
from groundplan.testing.database import Cluster

WORKLOAD = "assistant"
EASY, HARD = "what are your opening hours on day {}", "prove that the sum of {} odd numbers is even"
KEEP = "keep: {content: redacted, for: 30 days}"
PAIRS, DRAWN = 210, 420


@dataclass
class World:
    control: Control
    url: str

    def cli(self, *arguments: str) -> tuple[int, Any]:
        environment = {**os.environ, "GROUNDPLAN_URL": f"http://127.0.0.1:{self.control.port}"}
        done = run_command((*arguments, "--home", str(self.control.home.root), "--json"), environment, 120)
        assert done.stdout.strip(), done.stderr
        return done.returncode, json.loads(done.stdout)


@pytest.fixture(scope="module")
def world(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """With calls that were replayed and judged, and calls in the arms of an A/B experiment."""
    with postgres_cluster.database() as database, run_control(database, tmp_path_factory.mktemp("evidence")) as control:
        files = {name: text.replace("stage: pilot", f"stage: pilot\n{KEEP}") for name, text in control.files().items()}
        assert control.ask("POST", "/api/apply", {"files": files}).status in (200, 201)
        with connect(database.urls["owner"]) as conn:
            _fill(conn, SubjectKeys.of(control.home))
        yield World(control, database.urls["owner"])


class Past:
    """Calls that were made, with what is kept of them."""

    def __init__(self, conn: Connection[Any], keys: SubjectKeys) -> None:
        self._conn, self._keys = conn, keys
        identity.add_person(conn, "operator", "lea@acme.example", "Lea Own")
        self._person = identity.find_person(conn, "lea@acme.example").id
        self._rows: list[tuple[Any, ...]] = []
        self._kept: list[content_store.Row] = []
        self.at = datetime.now(UTC) - timedelta(days=2)

    def call(self, model: str, cost: str, detail: dict[str, Any], text: str | None) -> UUID:
        """One answered call, kept where `text` is its question."""
        id = new_id()
        row: tuple[Any, ...] = (
            id, self.at, WORKLOAD, self._person, None, "care", "chat.completions", "ok", 200, None, model, "own",
            "rack", Decimal(cost), Decimal(cost), 3, 2, "none", 1, new_id(), False, 12.5, 3.5, detail, 0, 0,
        )  # fmt: skip
        self._rows.append(row)
        if text is not None:
            said = [{"role": "user", "content": f"I am number {id}"}, {"role": "assistant", "content": "hello"}]
            body = {"model": "auto", "messages": [*said, {"role": "user", "content": text}]}
            kept = kept_document(json.dumps(body).encode(), b'{"choices": []}', redacted=True)
            sealed = self._keys.seal(self._conn, self._person, f"{id}\n{kept.document}")
            until = self.at + timedelta(days=30)
            self._kept.append(content_store.Row(id, self.at, WORKLOAD, "redacted", until, sealed, {}, kept.is_cut))
        return id

    def write(self) -> None:
        ledger_store.insert_rows(self._conn, ledger_store.INSERT_CALLS, self._rows)
        content_store.add(self._conn, self._kept)


def _fill(conn: Connection[Any], keys: SubjectKeys) -> None:
    past, dice = Past(conn, keys), np.random.default_rng(7)
    run, experiment = new_id(), new_id()
    conn.execute(
        """INSERT INTO replay_run (id, workload, current, candidate, judge, budget_usd, calls, asked_by, state)
           VALUES (%s, %s, 'large', 'small', 'judge', 1, 500, 'operator', 'done')""",
        (run, WORKLOAD),
    )
    conn.execute(
        """INSERT INTO experiment (id, name, workload, type, candidate, judge, share, split, tolerance, guard_tolerance,
             budget_usd, until, asked_by, state)
           VALUES (%s, 'ab-small', %s, 'ab', 'small', '', 5000, 'person', 0.05, 0.05, 1, now(), 'operator', 'ended')""",
        (experiment, WORKLOAD),
    )
    pairs, said = [], []
    for number in range(PAIRS):
        hard = bool(dice.random() < 0.4)
        call = past.call("acme/large", "0.01", {"scores": [0.2, 0.7]}, (HARD if hard else EASY).format(number))
        pairs.append((run, call, past.call("acme/small", "0.001", {}, None), dice.random() < (0.05 if hard else 0.97)))
    for number in range(DRAWN):
        hard, candidate = bool(dice.random() < 0.4), number % 2 == 0
        route = {"experiment": str(experiment), "arm": "candidate" if candidate else "control", "unit": f"u{number}"}
        model, cost = ("acme/small", "0.001") if candidate else ("acme/large", "0.01")
        call = past.call(model, cost, {"route": route}, (HARD if hard else EASY).format(number))
        said.append((new_id(), call, bool(dice.random() < (0.05 if hard and candidate else 0.97))))
    past.write()
    with conn.cursor() as cursor:
        cursor.executemany(
            """INSERT INTO replay_call (run, call_id, segment, state, beside_call, kept, cost_usd, candidate_usd)
               VALUES (%s, %s, '', 'judged', %s, %s, 0.01, 0.001)""",
            [(*pair[:3], bool(pair[3])) for pair in pairs],
        )
        cursor.executemany("INSERT INTO outcome (id, call_id, accepted, by) VALUES (%s, %s, %s, 'ana')", said)


@pytest.mark.parametrize("source", ["judges", "outcomes"])
def test_a_router_is_trained_from_what_calls_showed(world: World, source: str) -> None:
    code, made = world.cli(
        "routing", "train", "--from", source, "--workload", WORKLOAD, "--name", source, "--keep", "0.95"
    )
    assert code == 0, made
    assert made["from"] == f"{source} of {WORKLOAD}"
    assert made["best_single"] == "acme/large"
    assert made["points"]["0.95"]["saved"] > 0.2
    router = registry.load_router(world.control.home.root / "routers", made["router"])
    assert router.models == ("acme/large", "acme/small")
    assert router.trained["from"] == f"{source} of {WORKLOAD}"
    (listed,) = [each for each in world.cli("routing", "list")[1]["routers"] if each["router"] == made["router"]]
    assert listed["digest"] == made["digest"]


def test_evidence_has_questions_as_gateways_read_them_and_reading_is_audited(world: World) -> None:
    found = world.control.ask("POST", "/api/routing/evidence", {"workload": WORKLOAD, "from": "judges"})
    assert found.status == 200
    rows = found.body["rows"]
    assert len(rows) == PAIRS
    assert all(row["prompt"].startswith(("what are", "prove that")) for row in rows)
    assert len({row["unit"] for row in rows}) == PAIRS, "each is a conversation of its own"
    (context,) = {json.dumps({**row["context"], "before": 0}) for row in rows}
    assert json.loads(context) == {
        "messages": 3, "before": 0, "scores": [0.7, 0.2], "task": ["endpoint chat.completions"],
    }  # fmt: skip
    assert all(20 < row["context"]["before"] < 80 for row in rows), "bytes of texts, and not of the request"
    assert {row["by"] for row in rows} == {""}
    entries = world.control.ask("GET", "/api/audit?action=routing.evidence").body["entries"]
    assert entries[0]["detail"] == {"from": "judges", "calls": PAIRS}


def test_a_persons_word_goes_before_the_judges_and_what_is_gone_is_no_evidence(world: World) -> None:
    body = {"workload": WORKLOAD, "from": "judges"}
    before = {row["id"]: row for row in world.control.ask("POST", "/api/routing/evidence", body).body["rows"]}
    other, gone, *_ = sorted(before)
    with connect(world.url, autocommit=True) as conn:
        conn.execute("UPDATE replay_call SET reviewed = NOT kept, reviewed_by = 'ana' WHERE call_id = %s", (other,))
        conn.execute("CREATE TEMP TABLE gone AS SELECT * FROM content WHERE call_id = %s", (gone,))
        conn.execute("DELETE FROM content WHERE call_id = %s", (gone,))
        after = {row["id"]: row for row in world.control.ask("POST", "/api/routing/evidence", body).body["rows"]}
        conn.execute("INSERT INTO content SELECT * FROM gone")
        conn.execute("UPDATE replay_call SET reviewed = NULL, reviewed_by = NULL WHERE call_id = %s", (other,))
    assert set(before) - set(after) == {gone}
    assert after[other]["kept"] is not before[other]["kept"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), "routing_source"),
        (("--from", "judges"), "routing_source"),
        (("set.jsonl", "--from", "judges", "--workload", WORKLOAD), "routing_source"),
        (("--from", "judges", "--workload", "absent"), "workload_unknown"),
    ],
)
def test_what_to_learn_from_must_be_clear(world: World, arguments: tuple[str, ...], code: str) -> None:
    status, told = world.cli("routing", "train", *arguments, "--name", "x")
    assert status != 0
    assert told["error"]["code"] == code
    assert told["error"]["hint"]


@pytest.mark.parametrize("source", ["judges", "outcomes"])
def test_calls_of_a_demo_are_no_evidence_and_it_is_told_how_to_bring_some(world: World, source: str) -> None:
    arguments = ("routing", "train", "--from", source, "--workload", WORKLOAD, "--name", "never")
    with connect(world.url) as conn:
        conn.execute("UPDATE call SET demo = true")
    try:
        code, answer = world.cli(*arguments)
        assert code != 0 and answer["error"]["code"] == "evidence_demo"
        assert "routing train SET.jsonl" in answer["error"]["hint"] and "keep:" in answer["error"]["hint"]
        with connect(world.url) as conn:
            conn.execute("UPDATE call SET demo = false WHERE id = (SELECT id FROM call ORDER BY at DESC, id LIMIT 1)")
        assert world.cli(*arguments)[1]["error"]["code"] == "evidence_thin", "of calls of people too few are kept"
    finally:
        with connect(world.url) as conn:
            conn.execute("UPDATE call SET demo = false")
