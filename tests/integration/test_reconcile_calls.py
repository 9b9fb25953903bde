"""Real calls through a gateway worker, then a bill for them: over the API, the command line and the console's form."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import psycopg
import pytest
from tests.integration.gateway_stack import Stack, blueprint, deployment, installation, scripted_upstream, workload
from tests.integration.nursery import Worker, fork_program, run_command
from tests.integration.test_api_control import ANSWER_TIMEOUT_S

from groundplan.api.genesis import prepare_home
from groundplan.core.ids import new_id
from groundplan.gateway.journal.shipper import Shipper
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script, ScriptedModel

HEAD = "timestamp,model,request id,input tokens,output tokens,amount,currency"


@dataclass
class Setup:
    stack: Stack
    model: ScriptedModel
    key: str
    control: int

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """(status, JSON or text, headers) of one request to the control process."""
        connection = http.client.HTTPConnection("127.0.0.1", self.control, timeout=ANSWER_TIMEOUT_S)
        token = {"Authorization": f"Bearer {self.stack.home.operator_token.read_text().strip()}"}
        try:
            connection.request(method, path, body, token if headers is None else headers)
            reply = connection.getresponse()
            raw, told = reply.read().decode(), {name.lower(): value for name, value in reply.getheaders()}
        finally:
            connection.close()
        return reply.status, json.loads(raw) if raw.startswith("{") else raw, told

    def reconcile(self, bill: str, **options: str) -> dict[str, Any]:
        path = f"/api/cost/reconcile?{urlencode(options)}"
        status, body, _ = self.ask("POST", path, bill.encode())
        assert status == 200, body
        assert body["beside"] == []
        parts = sum((Decimal(row["amount_usd"]) for row in body["explanations"]), Decimal(0))
        assert (
            parts
            == Decimal(body["difference_usd"])
            == sum((Decimal(row["amount_usd"]) for row in body["rows"]), Decimal(0))
        )
        found: dict[str, Any] = body
        return found

    async def call(self, tokens: int, **more: Any) -> tuple[str, int]:
        """(id, prompt tokens) of a call that was answered with so many tokens."""
        self.model.script = Script(tokens=tokens)
        reply = await self.stack.chat(self.key, **more)
        assert reply.status == 200, reply.body
        return reply.json["groundplan"]["call_id"], reply.json["usage"]["prompt_tokens"]

    def _ship(self) -> None:
        with psycopg.connect(self.stack.database.urls["shipper"], autocommit=True) as connection:
            Shipper(self.stack.home).run_round(connection)

    async def shipped(self, attempts: int) -> None:
        end = time.monotonic() + 60
        while True:
            await asyncio.to_thread(self._ship)
            if self.stack.sql("SELECT count(*) FROM attempt WHERE state = 'settled'")[0][0] >= attempts:
                return
            assert time.monotonic() < end, self.stack.sql("SELECT deployment, state, outcome FROM attempt")
            await asyncio.sleep(0.05)


@pytest.fixture
async def setup(database: Database, tmp_path: Path) -> AsyncIterator[Setup]:
    async with (
        scripted_upstream("primary") as (model, port),
        scripted_upstream("other") as (_, far),
        installation(database, tmp_path) as stack,
    ):
        places = [deployment("primary", port), deployment("other", far)]
        stack.apply(blueprint(1, places, [workload("assistant", ["primary", "other"])]))
        stack.start()
        await stack.wait_until_ready()
        prepare_home(stack.home)
        listener = socket.create_server(("127.0.0.1", 0))
        control = listener.getsockname()[1]
        with (tmp_path / "control.log").open("wb") as log:
            process = fork_program(
                "groundplan.console.app", ["--home", str(stack.home.root)], log.fileno(),
                {**os.environ, "GROUNDPLAN_DATABASE_URL": database.dsn}, listener.fileno(),
            )  # fmt: skip
        listener.close()
        made = Setup(stack, model, stack.key(), control)
        try:
            await _alive(made, process, tmp_path / "control.log")
            yield made
        finally:
            process.terminate()
            process.wait(60)


async def _alive(setup: Setup, process: Worker, log: Path) -> None:
    end = time.monotonic() + 60
    while True:
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        try:
            if setup.ask("GET", "/livez")[0] == 200:
                return
        except OSError:
            await asyncio.sleep(0.05)


def line(call: str, given: int, generated: int, usd: str, attempt: int = 0) -> str:
    return f"2099-01-01T00:00:00Z,up-primary,{call}-{attempt},{given},{generated},{usd},USD"


async def test_each_difference_is_found_at_its_call(setup: Setup) -> None:
    same, given = await setup.call(20)
    dearer, _ = await setup.call(20)
    longer, _ = await setup.call(20)
    absent, _ = await setup.call(7)
    setup.model.script = Script(mode="error", status=503)  # refused at the first place, answered at the second
    fallen = (await setup.stack.chat(setup.key)).json["groundplan"]["call_id"]
    await setup.shipped(6)
    unknown = new_id()
    bill = "\n".join(
        [
            HEAD,
            line(same, given, 20, "0.000200000000"),
            line(dearer, given, 20, "0.000240000000"),
            line(longer, given, 30, "0.000300000000"),
            line(fallen, given, 20, "0.000050000000"),
            line(str(unknown), 1, 1, "0.000100000000"),
        ]
    )
    today = str(setup.stack.sql("SELECT (max(at) AT TIME ZONE 'UTC')::date FROM attempt")[0][0])
    first = str(setup.stack.sql("SELECT (min(at) AT TIME ZONE 'UTC')::date FROM attempt")[0][0])
    found = setup.reconcile(bill, name="acme.csv", **{"from": first, "to": "2099-01-01"})
    assert found["from"] == first and found["to"] == "2099-01-01" and today >= first
    assert found["columns"]["id"] == "request id" and found["matched_by_id"] == 4
    explained = {row["kind"]: row["amount_usd"] for row in found["explanations"]}
    assert explained == {
        "price": "0.000040000000", "tokens": "0.000100000000", "billed_failure": "0.000050000000",
        "bill_line_without_call": "0.000100000000", "call_without_bill_line": "-0.000070000000",
    }  # fmt: skip
    where = {row["kind"]: row for row in found["rows"]}
    assert where["price"]["calls"] == [dearer] and "output at 12.00 USD/Mtok" in where["price"]["note"]
    assert where["tokens"]["calls"] == [longer] and where["tokens"]["lines"] == [4]
    assert where["billed_failure"]["calls"] == [fallen] and where["call_without_bill_line"]["calls"] == [absent]
    assert where["bill_line_without_call"]["calls"] == [str(unknown)]
    assert found["left_out"]["attempts"] == 1  # the second place, whose model the bill does not name
    everything = setup.reconcile(bill, provider="scripted", **{"from": first, "to": "2099-01-01"})
    assert everything["left_out"]["attempts"] == 0 and Decimal(everything["ledger_usd"]) > Decimal(found["ledger_usd"])


async def test_a_daily_export_and_the_command_line_and_the_console(setup: Setup, tmp_path: Path) -> None:
    for _ in range(3):
        call, given = await setup.call(20)
    await setup.shipped(3)
    days = setup.stack.sql("SELECT (at AT TIME ZONE 'UTC')::date, count(*) FROM attempt GROUP BY 1 ORDER BY 1")
    head = "date,model,input_tokens,output_tokens,num_model_requests,cost"
    rows = [f"{day},primary,{given * n},{20 * n},{n},{Decimal('0.0003') * n}" for day, n in days]
    bill = "\n".join([head, *rows])
    found = setup.reconcile(bill)
    assert found["bill_usd"] == "0.000900000000" and found["ledger_usd"] == "0.000600000000"
    assert {row["kind"] for row in found["explanations"]} == {"price"}
    assert call in [each for row in found["rows"] for each in row["calls"]]
    (tmp_path / "bill.csv").write_text(bill)
    environment = {
        **os.environ, "GROUNDPLAN_URL": f"http://127.0.0.1:{setup.control}",
        "GROUNDPLAN_TOKEN": setup.stack.home.operator_token.read_text().strip(),
    }  # fmt: skip

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_command(("cost", *arguments), environment, 60)

    done = await asyncio.to_thread(run, "reconcile", str(tmp_path / "bill.csv"))
    assert done.returncode == 0, done.stderr
    assert "0.000300000000" in done.stdout and "amount=cost" in done.stdout
    assert "the bill is 1.5 times the ledger; output at 15.00 USD/Mtok would explain it" in done.stdout
    done = await asyncio.to_thread(
        run, "reconcile", str(tmp_path / "bill.csv"), "--columns", "amount=nothing", "--json"
    )
    assert done.returncode == 65 and json.loads(done.stdout)["error"]["code"] == "bill_columns"
    (tmp_path / "euro.csv").write_text("\n".join([f"{head},currency", *(f"{row},EUR" for row in rows)]))
    done = await asyncio.to_thread(run, "reconcile", str(tmp_path / "euro.csv"))
    assert done.returncode == 1 and f"incomplete: {len(days)} of {len(days)} line" in done.stdout, done.stdout
    done = await asyncio.to_thread(run, "reconcile", str(tmp_path / "euro.csv"), "--rate", "EUR=1", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["complete"]
    done = await asyncio.to_thread(run, "--json")
    assert json.loads(done.stdout)["total_usd"] == "0.000600000000"
    await asyncio.to_thread(_by_form, setup, bill, call)


def _by_form(setup: Setup, bill: str, call: str) -> None:
    url = setup.ask("POST", "/api/login-links", json.dumps({"person": None}).encode(), {
        "Authorization": f"Bearer {setup.stack.home.operator_token.read_text().strip()}",
        "Content-Type": "application/json",
    })[1]["url"]  # fmt: skip
    cookie = setup.ask("GET", urlsplit(url).path, headers={})[2]["set-cookie"].partition(";")[0]
    csrf = setup.ask("GET", "/api/session", headers={"Cookie": cookie})[1]["csrf"]
    assert 'action="/do/reconcile"' in setup.ask("GET", "/cost", headers={"Cookie": cookie})[1]

    def send(text: str, token: str) -> tuple[int, str, dict[str, str]]:
        fields = [("csrf", token), ("provider", ""), ("columns", ""), ("rate", "")]
        body = "".join(f'--b\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in fields)
        body += '--b\r\nContent-Disposition: form-data; name="file"; filename="<b>.csv"\r\n'
        body += f"Content-Type: text/csv\r\n\r\n{text}\r\n--b--\r\n"
        headers = {"Cookie": cookie, "Content-Type": "multipart/form-data; boundary=b"}
        return setup.ask("POST", "/do/reconcile", body.encode(), headers)

    status, page, _ = send(bill, csrf)
    assert status == 200 and f'href="/calls/{call}"' in page and "0.000300000000" in page
    assert "&lt;b&gt;.csv" in page and "<b>.csv" not in page
    status, page, _ = send("date,model,cost,currency\n2019-01-01,elsewhere,5,EUR\n", csrf)
    assert status == 200 and "Incomplete: 1 of 1 lines" in page and "agree to the last digit" not in page
    for text, token, problem in ((bill, "wrong", "CSRF"), ("a,b\n1,2\n", csrf, "column"), ("", csrf, "No+file")):
        status, _, headers = send(text, token)
        assert status == 303 and problem in headers["location"], headers


async def test_who_may_not_and_what_is_wrong(setup: Setup) -> None:
    assert setup.ask("POST", "/api/cost/reconcile", b"x", {})[0] == 401
    cases = {
        b"\xff\xfea": "bill_syntax", b"\x1f\x8b": "bill_syntax", b"": "bill_empty",
        b"date,amount\n2026-11-25,x": "bill_line", b"model,amount\ngpt,1": "bill_days",
    }  # fmt: skip
    for body, code in cases.items():
        status, told, _ = setup.ask("POST", "/api/cost/reconcile", body)
        assert status == 400 and told["error"]["code"] == code and told["error"]["hint"]
    for query, code in (("rate=EUR", "option_form"), ("rate=EUR=x", "bill_rate"), ("columns=amount", "option_form")):
        status, told, _ = setup.ask("POST", f"/api/cost/reconcile?{query}", b"date,amount\n2026-11-25,1")
        assert (status, told["error"]["code"]) == (400, code)
    assert setup.ask("POST", "/api/cost/reconcile", b"x" * ((16 << 20) + 1))[0] == 413
    described = setup.ask("GET", "/api/openapi.json")[1]["paths"]["/api/cost/reconcile"]["post"]
    assert list(described["requestBody"]["content"]) == ["text/csv"]
    assert {part["name"] for part in described["parameters"]} >= {"provider", "from", "to", "columns", "rate"}
