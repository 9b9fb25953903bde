"""The tour after `ready`: one real question to a real model, and the evidence behind its answer.

Prints for people, on stderr only. A failed step is reported, and `up` goes on serving.
"""

from __future__ import annotations

import os
import shlex
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from groundplan.api.calls.ask import ask_once
from groundplan.cli.client import ControlClient
from groundplan.cli.options import program_name
from groundplan.cli.output import note, usd
from groundplan.core.audit.keys import load_public
from groundplan.core.audit.proof import inclusion_proof
from groundplan.core.errors import GroundplanError
from groundplan.core.home import Home
from groundplan.core.settings import DEFAULT_PORT, load_settings
from groundplan.core.words import quantity

WORKLOAD = "handbook-answers"
QUESTION = "How many days of parental leave do we get?"
EXAMPLE_EMAIL = "maria@acme.example"
AUDIT_WAIT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Key:
    """The key that the tour created, for the environment variables that it prints."""

    id: str
    secret: str
    user: str | None


def take_tour(client: ControlClient, home: Home, login_url: str) -> None:
    """Ask a question, show the answer with its evidence, and print the next steps."""
    gateway = client.gateway_url()
    note(f'\nAsking "{QUESTION}" at {WORKLOAD} ...')
    key = _key(client)
    if key is not None:
        try:
            _show(client, home, gateway, key)
        except GroundplanError as error:
            note(f"  It failed: {error}")
    _next_steps(home, gateway, key, login_url)


def _key(client: ControlClient) -> Key | None:
    try:
        user = _example_person(client)
        created = client.post("/api/keys", {"workload": WORKLOAD, "user": user, "days": 90})
    except GroundplanError as error:
        note(f"  No key could be created: {error}")
        return None
    return Key(created["id"], created["key"], user)


def _example_person(client: ControlClient) -> str | None:
    people = [person["email"] for person in client.get("/api/people")["people"] if person["active"]]
    return EXAMPLE_EMAIL if EXAMPLE_EMAIL in people else next(iter(people), None)


def _show(client: ControlClient, home: Home, gateway: str, key: Key) -> None:
    began = time.monotonic()
    value = ask_once(gateway, key.secret, WORKLOAD, QUESTION, max_tokens=64, stop=["\n"])
    seconds = time.monotonic() - began
    facts: dict[str, Any] = value.get("groundplan") or {}
    note(f"\n  {key.user or 'nobody'} gets:  {value['choices'][0]['message']['content'].strip()}")
    for line in passage_lines(facts, _folders(client)):
        note(line)
    note(f"\n  model    {facts.get('model')} at {facts.get('site')}")
    note(f"  cost     {usd(facts.get('cost_usd'))} of blueprint {facts.get('blueprint')}'s budgets, in {seconds:.1f} s")
    note(f"  call     {facts.get('call_id')}")
    note(f"  audit    {_audit(client, home, str(facts.get('call_id')))}")


def _folders(client: ControlClient) -> dict[str, str]:
    content = client.get("/api/blueprints/current")["content"]
    return {source["name"]: source["path"] for source in content["sources"]}


def passage_lines(facts: dict[str, Any], folders: dict[str, str]) -> list[str]:
    """The best passage quoted, with file and lines."""
    sources = facts.get("sources") or []
    if not sources:
        return ["  (no passage was found)"]
    best = sources[0]
    file = f"{folders.get(best['source'], best['source']).rstrip('/')}/{best['path']}"
    quoted = [f"  | {line}" for line in str(best.get("text", "")).strip().splitlines()]
    return ["", f"  from {file}, lines {best['start_line']}-{best['end_line']}:", *quoted]


def _audit(client: ControlClient, home: Home, call_id: str) -> str:
    """Wait for the call's audit entry and verify its inclusion proof; returns a sentence on the result."""
    deadline = time.monotonic() + AUDIT_WAIT_SECONDS
    while time.monotonic() < deadline:
        try:
            entry = next(iter(client.get(f"/api/why/{call_id}")["audit"]), None)
            if entry is not None:
                proof = client.get(f"/api/audit/{entry['id']}/proof")
                return _verified(home, int(proof["index"]))
        except GroundplanError:
            pass
        time.sleep(0.2)
    return "its entry has not been sequenced yet; `groundplan audit verify` checks the log"


def _verified(home: Home, index: int) -> str:
    """Verify the proof here, from the files of the log and its public key only; returns a sentence on the result."""
    proof = inclusion_proof(home.audit, index)
    if not proof.holds(load_public(home, "checkpoint").public_bytes_raw()):
        return f"entry {index} does NOT verify; run `groundplan audit verify`"
    hashes = quantity(len(proof.hashes), "hash leads", "hashes lead")
    return f"entry {index}, verified: {hashes} to a signed checkpoint"


def _next_steps(home: Home, gateway: str, key: Key | None, login_url: str) -> None:
    program = program_name()
    note(f"\nThe console (works once, within ten minutes; `{program} login{_home_option(home)}` makes another):")
    note(f"  {login_url}")
    if key is not None:
        note("\nAny OpenAI client:")
        note(f"  export OPENAI_BASE_URL={gateway}")
        note(f"  export OPENAI_API_KEY={key.secret}")
    note("\nYour own company:")
    port = (urlsplit(gateway).port or DEFAULT_PORT) + 100
    note(f"  {program} init my-company")
    note(f"  {program} up --workspace my-company --home my-home --port {port} --control-port {port + 1}")
    note(f"\nServing from {home.root}. Ctrl-C ends it.")


def _home_option(home: Home) -> str:
    """The option that names this HOME; empty if commands find it without."""
    is_default = load_settings().home.absolute() == home.root.absolute()
    return "" if is_default else f" --home {shlex.quote(os.path.relpath(home.root))}"
