"""Background job: replays of kept calls, one run at a time, through a gateway and within the run's budget.

Several control processes may run it: a run is claimed, and its process renews the claim every few calls; another
process continues the run of a process that died, without sending its calls twice. Each run has a key of its own with
its budget, usable for nothing else and revoked at the end. Content is unsealed one call at a time, sent to the gateway
of this machine, and kept nowhere.
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urljoin
from uuid import UUID

from psycopg import Connection

from groundplan.api.calls import ask
from groundplan.api.context import Services
from groundplan.api.propagation import policy_effect
from groundplan.api.served_blueprint import current_or_none
from groundplan.api.store import policy_number
from groundplan.blueprint.model import Workload
from groundplan.core.audit.entry import SYSTEM
from groundplan.core.audit.store import record
from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.errors import Conflict, GroundplanError, Problem, Unavailable
from groundplan.core.ids import new_id
from groundplan.core.money import PICO, from_decimal
from groundplan.economics.experiment.model import BUDGET_PREFIX
from groundplan.economics.levers.requests import INTERNAL_PURPOSES
from groundplan.economics.replay import replay_store as store
from groundplan.economics.replay import service
from groundplan.economics.replay.pairwise import UNASKED, UNREAD, unreachable_problem, unreadable_problem
from groundplan.economics.replay.run import QueuedCall, ReplayResult, Run
from groundplan.gateway.experiments.compare import text_of
from groundplan.gateway.experiments.replays import PURPOSE
from groundplan.identity import service as identity
from groundplan.identity.model import KeyTerms
from groundplan.ledger import content_store, rollup_store

log = logging.getLogger("groundplan.api.calls.replays")
LOOK_SECONDS = 5.0
KEY_HOURS = 12
WAITS_CODE = "replay_waits"
ANSWER_SECONDS = 300.0
KEY_WAIT_SECONDS = 5.0
_BUDGET_CODES = frozenset({"budget_exhausted"})
"""Refusals after which the run cannot continue."""
_TEMPORARY_CODES = frozenset(
    {"budget_unreachable", "limit_unreachable", "rate_limit_exceeded", "overloaded", "not_ready", "experiment_waits",
     "policy_lease_expired", "journal_unavailable", "grounding_unavailable"}
)  # fmt: skip
"""Temporary refusals of calls that were not sent."""


def run_next_replay(services: Services) -> Run | None:
    """Add the declared nightly runs, and execute the next run to its end; returns that run, or None."""
    now = services.clock.now()
    with services.transaction() as conn:
        blueprint = current_or_none(conn)
        if blueprint is None:
            return None
        service.queue_declared(conn, blueprint.workloads, now)
        service.close_stale(conn, blueprint.workloads, now)
    runner = new_id()
    with services.transaction() as conn:
        run = store.claim(conn, runner)
    if run is None:
        return None
    workload = next((each for each in blueprint.workloads if each.name == run.workload), None)
    try:
        _replay(services, run, runner, workload)
    except Unavailable as error:
        log.warning("the replay %s waits: %s", run.id, error.message)
        with services.transaction() as conn:
            store.release(conn, run.id, runner)
    return run


def _replay(services: Services, run: Run, runner: UUID, workload: Workload | None) -> None:
    now = services.clock.now()
    with services.transaction() as conn:
        try:
            service.check(run, workload)
        except GroundplanError as error:
            store.fail(conn, run.id, Problem(error.message, error.code, error.hint))
            return
        store.give_up_sent(conn, run.id)
        for key in run.keys:
            _revoke(conn, key)
        store.draw_sample(conn, run, now - timedelta(days=store.DAYS))
        left = run.budget_usd - store.spent(conn, tuple(run.keys))
    why: str | Problem = "its budget is used up"
    if left > 0 and workload is not None:
        gateway = services.gateway()
        key, secret = _create_key(services, run, left)
        try:
            why = _replay_calls(services, run, runner, _GatewayClient(gateway, secret, depends_on_person(workload)))
        finally:
            with services.transaction() as conn:
                _revoke(conn, key)
    if why == "taken over":
        return
    with services.transaction() as conn:
        if isinstance(why, Problem):
            service.end_unreadable(conn, run, why)
        else:
            service.finish(conn, run, _monthly_calls(conn, run, services.clock.now()), services.clock.now(), why)


def _revoke(conn: Connection[Any], key: UUID) -> None:
    with suppress(Conflict):  # it is revoked
        identity.revoke_key(conn, SYSTEM, key)


def depends_on_person(workload: Workload) -> bool:
    """Whether what a call of the workload may see or do depends on its person."""
    return workload.grounding is not None or bool(workload.use)


def _create_key(services: Services, run: Run, left: Decimal) -> tuple[UUID, str]:
    terms = KeyTerms(acts_for_others=True, budget=from_decimal(left), budget_period="total", tags=("replay",))
    expires = services.clock.now() + timedelta(hours=KEY_HOURS)
    with services.transaction() as conn:
        made = identity.create_key(conn, SYSTEM, run.workload, None, terms, expires)
        store.add_key(conn, run.id, made[0], PURPOSE)
        number = policy_number(conn)
    policy_effect(services, number)
    return made


def _replay_calls(services: Services, run: Run, runner: UUID, line: _GatewayClient) -> str | Problem:
    """Replay the calls of a run. Returns why it ended early, empty where it did not; a `Problem` where its judge gives
    no readable answers, or none."""
    read = 0
    heard = _JudgeWatch(run.judge)
    try:
        while True:
            with services.transaction() as conn:
                if not store.heartbeat(conn, run.id, runner):
                    return "taken over"
                waiting = store.take_next_call(conn, run.id)
                content = None if waiting is None else _kept_content(services, conn, waiting.call)
            if waiting is None:
                return ""
            read += content is not None
            try:
                came = _replay_call(run, waiting, content, line)
            except Unavailable as error:
                if error.code == WAITS_CODE:
                    with services.transaction() as conn:
                        store.put_back(conn, run.id, waiting.call)
                raise
            with services.transaction() as conn:
                store.record_answer(conn, run.id, came)
            if (problem := heard.problem(came, services.clock.now())) is not None:
                return problem
            if came.why in _BUDGET_CODES:
                return "its budget, or one of its workload's, has not enough left for what a further call may cost"
    finally:
        with services.transaction() as conn:
            detail = {"run": str(run.id), "calls": read, "candidate": run.candidate}
            record(conn, action="content.replayed", actor=SYSTEM, subject=f"workload/{run.workload}", detail=detail)


class _JudgeWatch:
    """The recent answers of a judge, to stop a run whose judge does not work."""

    def __init__(self, judge: str) -> None:
        self._judge = judge
        self._said: deque[str | None] = deque(maxlen=UNREAD)
        self._vain: list[datetime] = []

    def problem(self, came: ReplayResult, now: datetime) -> Problem | None:
        """Why the judge should not be asked again; None where it works."""
        if came.said is not None:
            self._said.appendleft(came.said if came.kept is None else None)
            self._vain.clear()
        if came.code:
            self._vain.append(now)
        if len(self._vain) >= UNASKED:
            return unreachable_problem(self._judge, len(self._vain), self._vain[0], came.code)
        return unreadable_problem(self._judge, list(self._said))


def _kept_content(services: Services, conn: Connection[Any], call: UUID) -> tuple[dict[str, Any], str] | None:
    """(request body, answer text) of a kept call; None where it was deleted or erased, or is no conversation."""
    kept = content_store.find_content(conn, call)
    text = None if kept is None else SubjectKeys.of(services.home).unseal(conn, kept.sealed)
    if text is None:
        return None
    value = json.loads(text.partition("\n")[2])
    body, answer = value["prompt"], text_of(json.dumps(value["answer"]).encode())
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list) or not answer:
        return None
    return body, answer


def _replay_call(
    run: Run, waiting: QueuedCall, content: tuple[dict[str, Any], str] | None, line: _GatewayClient
) -> ReplayResult:
    if content is None:
        return ReplayResult(waiting.call, None, None, False, Decimal(0), "content_gone")
    body, answer = content
    value = {
        "run": str(run.id), "call": str(waiting.call), "endpoint": waiting.endpoint, "body": body, "answer": answer,
        "candidate": run.candidate, "judge": run.judge,
    }  # fmt: skip
    status, told = line.post(value, waiting.email)
    if status != 200:
        code = str((told.get("error") or {}).get("code") or f"status_{status}")
        if code == "key_expired":
            raise Unavailable("its key has ended", code=WAITS_CODE, hint="It goes on with another one.")
        return ReplayResult(waiting.call, None, None, False, Decimal(0), code)
    if told["code"] in _TEMPORARY_CODES and not told["answered"] and not told["cost"]:
        hint = "It goes on by itself."
        raise Unavailable(f"the gateway refuses at the moment: {told['code']}", code=WAITS_CODE, hint=hint)
    score, usd = told["score"], Decimal(int(told["cost"])) / PICO
    why = "" if score is not None else _unjudged_reason(told)
    kept = None if score is None else float(score) >= 0.5
    if not told["answered"] and told["cost"]:
        kept, why = False, ""  # a candidate that is asked and does not answer has not kept the quality
    code = str(told["code"]) if why == store.OPEN else ""
    beside = UUID(told["call"])
    return ReplayResult(waiting.call, beside, kept, bool(told["contradicted"]), usd, why, told.get("said"), code)


def _unjudged_reason(told: dict[str, Any]) -> str:
    """Why an answer was not judged: an exhausted budget, which ends the run, or a judge that left it open."""
    code = str(told["code"])
    return (
        store.OPEN
        if told["answered"] and told["basis"] != "none" and code not in _BUDGET_CODES
        else code or "not_judged"
    )


class _GatewayClient:
    """Client of the gateway's replay endpoint, with the run's key."""

    def __init__(self, gateway: str, secret: str, named: bool) -> None:
        self._url = urljoin(gateway, "/api/replay")
        self._secret = secret
        self._named = named
        """Whether replays are made on behalf of the original people."""

    def post(self, value: dict[str, Any], email: str | None) -> tuple[int, dict[str, Any]]:
        """(status, JSON). Retried where the gateways do not know the key yet. Raises `Unavailable`."""
        person = email if self._named else None
        deadline = time.monotonic() + KEY_WAIT_SECONDS
        while True:
            status, told = ask.post(self._url, self._secret, value, person=person, seconds=ANSWER_SECONDS)
            if status != 401 or time.monotonic() > deadline:
                return status, told
            time.sleep(0.1)


def _monthly_calls(conn: Connection[Any], run: Run, now: datetime) -> dict[str, float]:
    """Feature -> calls per month that the present deployment answers for callers, extrapolated from the first of them
    where that is less than a month ago. Cached answers are left out, since they cost nothing either way; so are calls
    of guardrails and cascades, which stay there, in the same proportion for each feature."""
    wanted = {
        "since": now - timedelta(days=store.DAYS), "until": now, "workload": run.workload, "status": "ok",
        "deployment": run.current, "demo": None,
    }  # fmt: skip
    counts: dict[str, float] = {}
    first = now
    for row in rollup_store.calls_by(conn, ["day", "feature"], wanted):
        name = row["feature"] or ""
        if not name.startswith(BUDGET_PREFIX):  # calls that were made for experiments are no calls of people
            first = min(first, datetime.combine(row["day"], datetime.min.time(), UTC))
            answered = (row["calls"] or 0) - (row["cached"] or 0)
            counts[name] = counts.get(name, 0.0) + float(answered)
    days = max(1.0, min(float(store.DAYS), (now - first) / timedelta(days=1)))
    checks = sum(
        count
        for (purpose,), count in rollup_store.answers_by(conn, ["purpose"], wanted).items()
        if purpose in INTERNAL_PURPOSES
    )
    theirs = max(0.0, 1 - checks / whole) if (whole := sum(counts.values())) else 0.0
    return {name: calls * theirs * store.DAYS / days for name, calls in counts.items()}
