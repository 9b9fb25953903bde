"""The acts of the demo, executed on the running installation through the same API that everybody uses.

Results are never simulated: an act that fails raises its error.
"""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.api import store
from groundplan.api.caller import Caller
from groundplan.api.calls.ask import post_chat
from groundplan.api.calls.playground import create_brief_key
from groundplan.api.context import Services
from groundplan.api.local_services import post_local
from groundplan.api.people import find_person_id
from groundplan.api.propagation import policy_effect
from groundplan.api.served_blueprint import blueprint_at as blueprint_at
from groundplan.api.served_blueprint import current_blueprint, local_services
from groundplan.core.audit import ActingAs, person_actor
from groundplan.core.audit import verify as audit_verify
from groundplan.core.audit.checkpoint import parse_checkpoint, parse_note
from groundplan.core.audit.tiles import decode_bundle, encode_bundle, tile_path, tiles_of
from groundplan.core.errors import NotFound, Unavailable
from groundplan.core.scratch import scratch_folder
from groundplan.core.words import quantity
from groundplan.identity import service as identity

WORKLOAD = "staff-assistant"
HR_QUESTION = "What are the salary bands?"
ASKERS = ("ben@acme.example", "hana@acme.example")
RACE_WORKLOAD = "budget-check"
RACE_CALLS = 200
RACE_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class ActOptions:
    """Options of an act that the visitor chose; None means the act's default."""

    person: str | None = None
    workload: str | None = None
    question: str | None = None


Act = Callable[[Services, Caller, ActOptions], dict[str, Any]]


def cloud_down(services: Services, _: Caller, __: ActOptions) -> dict[str, Any]:
    """Every scripted cloud resets its connections at once; declared fallbacks answer."""
    names = _scripted_clouds(services)
    for name in names:
        post_local(services.home, name, "/control", {"mode": "down"})
    sentences = [f"{', '.join(names)} now resets every connection.", "Watch the lines swing to the fallbacks."]
    return {"title": "The cloud is down", "services": names, "told": sentences}


def cloud_up(services: Services, _: Caller, __: ActOptions) -> dict[str, Any]:
    """The scripted clouds answer again."""
    names = _scripted_clouds(services)
    for name in names:
        post_local(services.home, name, "/control", {"mode": "ok"})
    return {"title": "The cloud is back", "services": names, "told": [f"{', '.join(names)} answers again."]}


def ask_as(services: Services, caller: Caller, options: ActOptions) -> dict[str, Any]:
    """Ask the same question as two people (or as one named person): the answers depend on what each may read."""
    question = options.question or HR_QUESTION
    workload = options.workload or WORKLOAD
    people = (options.person,) if options.person else ASKERS
    answers = [_ask(services, caller, workload, person, question) for person in people]
    sentences = [f"{a['person']} was given {quantity(len(a['sources']), 'passage')}: {_paths(a)}." for a in answers]
    return {"title": "The same question as two people", "question": question, "answers": answers, "told": sentences}


def revoke_hr(services: Services, caller: Caller, options: ActOptions) -> dict[str, Any]:
    """Remove a person from the group hr; the next retrieval no longer finds its documents."""
    person = options.person or ASKERS[1]
    with services.transaction() as conn:
        number = identity.remove_member(conn, caller.actor, "hr", person)
    effective = policy_effect(services, number)
    sentences = [f"{person} is out of the group hr.", "Ask again: what only hr may read is gone."]
    return {"title": "Access is revoked", "person": person, "effective": effective, "told": sentences}


def restore_hr(services: Services, caller: Caller, options: ActOptions) -> dict[str, Any]:
    """Add the person to the group hr again."""
    person = options.person or ASKERS[1]
    with services.transaction() as conn:
        number = identity.add_member(conn, caller.actor, "hr", person)
    sentences = [f"{person} is in the group hr again."]
    return {
        "title": "Access is back",
        "person": person,
        "effective": policy_effect(services, number),
        "told": sentences,
    }


def budget_race(services: Services, caller: Caller, _: ActOptions) -> dict[str, Any]:
    """Make 200 equal calls at once against a budget for 100 a day, after bringing the cloud back if it is down."""
    gateway = services.gateway()
    for name in _scripted_clouds(services):
        post_local(services.home, name, "/control", {"mode": "ok"})
    key_id, key = _key(services, caller, RACE_WORKLOAD, None)
    began = time.monotonic()
    body = {"model": RACE_WORKLOAD, "messages": [{"role": "user", "content": "ping"}], "max_tokens": 8}
    try:
        with ThreadPoolExecutor(RACE_AT_ONCE) as pool:
            results = list(pool.map(lambda _: _outcome(*post_chat(gateway, key, body)), range(RACE_CALLS)))
    finally:
        _drop_key(services, caller, key_id)
    outcomes = Counter(results)
    seconds = time.monotonic() - began
    lines = [
        f"{RACE_CALLS} calls in {seconds:.1f} s: {outcomes['served']} were served, "
        f"{outcomes['budget_exhausted']} were refused because the budget was used up."
    ]
    if outcomes["served"] < RACE_CALLS // 2:
        lines.append("Part of today's budget had been spent before.")
    return {
        "title": "200 calls on a budget for 100",
        "calls": RACE_CALLS,
        "served": outcomes["served"],
        "refused": outcomes["budget_exhausted"],
        "outcomes": dict(outcomes),
        "seconds": round(seconds, 3),
        "told": lines,
    }


def tamper(services: Services, _: Caller, __: ActOptions) -> dict[str, Any]:
    """Change one byte in a copy of the audit log and verify the copy; the real log is not touched."""
    with scratch_folder("groundplan-tamper-") as folder:
        copy = folder / "audit"
        _copy_log(services.home.audit, copy)
        file = copy / tile_path("entries", *random.choice(_bundles(copy)))
        data = bytearray(file.read_bytes())
        data[random_entry_offset(bytes(data))] ^= 0x01
        file.write_bytes(bytes(data))
        verdict = audit_verify.verify(copy, None)
    lines = ["One bit of one byte was changed in a copy of the log."]
    lines += [f"{str(problem).capitalize()}." for problem in verdict.problems[:3]] or ["It was not found."]
    return {"title": "Tampering is found", "ok": verdict.ok, "problems": verdict.to_json()["problems"], "told": lines}


def rollback(services: Services, caller: Caller, _: ActOptions) -> dict[str, Any]:
    """Go back to the blueprint before, as a new blueprint. Where there is only one, or the last one brought a
    workload into service, which is to stay there, a small change is applied first."""
    with services.transaction() as conn:
        now = current_blueprint(conn).number
        files = dict(store.blueprint(conn, now)["sources"])
        first = now == 1 or bool(_workloads(conn, now) - _workloads(conn, now - 1))
    lines = []
    if first:
        with services.release_turn() as conn:
            services.releases.apply(conn, caller.actor, _small_change(files), "a small change in the demo")
            now = current_blueprint(conn).number
        lines.append(f"A small change made blueprint {now}.")
    with services.release_turn() as conn:
        value = services.releases.rollback(conn, caller.actor, now - 1, False, "rolled back in the demo")
    lines.append(f"Blueprint {value['blueprint']} has the content of blueprint {now - 1}; numbers never go back.")
    return {"title": "One command back", "from": now, **value, "told": lines}


def _workloads(conn: Connection[Any], number: int) -> set[str]:
    """Names of the workloads that a blueprint serves."""
    return {workload.name for workload in blueprint_at(conn, number).workloads}


def _small_change(files: dict[str, str]) -> dict[str, str]:
    """The files with one word more in the first purpose of a workload that is served."""
    for name, text in sorted(files.items()):
        if f"name: {WORKLOAD}\n" in text and "\npurpose: " in text:
            before, _, after = text.partition(f"name: {WORKLOAD}\n")
            return {
                **files,
                name: before + f"name: {WORKLOAD}\n" + after.replace("\npurpose: ", "\npurpose: (demo) ", 1),
            }
    raise NotFound(f"no workload {WORKLOAD} is declared", code="workload_unknown", hint="Use the example company.")


ACTS: dict[str, Act] = {
    "cloud-down": cloud_down,
    "cloud-up": cloud_up,
    "ask-as": ask_as,
    "revoke-hr": revoke_hr,
    "restore-hr": restore_hr,
    "budget-race": budget_race,
    "tamper": tamper,
    "rollback": rollback,
}


def _scripted_clouds(services: Services) -> list[str]:
    """Scripted services that play a cloud: those of deployments at sites of type cloud."""
    with services.transaction() as conn:
        blueprint = current_blueprint(conn)
    clouds = {site.name for site in blueprint.sites if site.type == "cloud"}
    urls = {deployment.url for deployment in blueprint.deployments if deployment.site in clouds}
    names = [name for name in local_services(blueprint) if name.startswith("scripted-") and f"local:{name}" in urls]
    if not names:
        raise NotFound("no cloud of this demo is scripted", code="no_scripted_cloud", hint="Use the example company.")
    return names


def _copy_log(source: Path, target: Path) -> None:
    """Copy a log that is being written: the checkpoint is read first, and files only ever grow beyond it."""
    checkpoint = source / "checkpoint"
    if not checkpoint.exists():
        raise _empty_log()
    data = checkpoint.read_bytes()
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("lock", "checkpoint", ".*"))
    (target / "checkpoint").write_bytes(data)


def _bundles(folder: Path) -> list[tuple[int, int]]:
    """(index, width) of the bundles of entries under the log's checkpoint."""
    data = (folder / "checkpoint").read_bytes()
    size = parse_checkpoint(parse_note(data).text).size
    if not size:
        raise _empty_log()
    return list(tiles_of(size, 0))


def _empty_log() -> Unavailable:
    return Unavailable("the log has no entry yet", code="audit_empty", hint="Ask again in a second.")


def random_entry_offset(bundle: bytes) -> int:
    """A random byte offset within one entry of a bundle, but not in its length, which would make the rest of the bundle
    unreadable."""
    entries = decode_bundle(bundle)
    chosen = random.randrange(len(entries))
    end = len(encode_bundle(entries[: chosen + 1]))
    return random.randrange(end - len(entries[chosen]), end)


def _ask(services: Services, caller: Caller, workload: str, person: str, question: str) -> dict[str, Any]:
    """Ask a question as a person with a temporary key; returns the answer with its passages."""
    gateway = services.gateway()
    key_id, key = _key(services, caller, workload, person)
    try:
        body = {"model": workload, "messages": [{"role": "user", "content": question}], "max_tokens": 120}
        status, value = post_chat(gateway, key, body)
    finally:
        _drop_key(services, caller, key_id)
    facts = value.get("groundplan") or {}
    error = value.get("error") or {}
    answer = value["choices"][0]["message"]["content"] if status == 200 else error.get("message", "")
    return {
        "person": person,
        "status": status,
        "answer": answer,
        "sources": facts.get("sources", []),
        "call_id": facts.get("call_id") or error.get("call_id"),
        "site": facts.get("site"),
        "cost_usd": facts.get("cost_usd"),
    }


def _paths(answer: dict[str, Any]) -> str:
    paths = {f"{source['source']}/{source['path']}" for source in answer["sources"]}
    return ", ".join(sorted(paths)) or "nothing that answers it"


def _key(services: Services, caller: Caller, workload: str, person: str | None) -> tuple[UUID, str]:
    """A key for one act. To ask as somebody is to act as them, and is recorded as such."""
    with services.transaction() as conn:
        person_id = None if person is None else find_person_id(conn, person)
    return create_brief_key(
        services,
        caller.actor if person_id is None else ActingAs(person_actor(person_id), caller.real),
        workload,
        person_id,
    )


def _drop_key(services: Services, caller: Caller, key_id: UUID) -> None:
    with services.transaction() as conn:
        identity.revoke_key(conn, caller.actor, key_id)


def _outcome(status: int, value: dict[str, Any]) -> str:
    return "served" if status == 200 else str((value.get("error") or {}).get("code", status))
