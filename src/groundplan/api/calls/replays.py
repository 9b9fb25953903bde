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
    workload = next((item for item in blueprint.workloads if item.name == run.workload), None)
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
        budget_left = run.budget_usd - store.spent(conn, tuple(run.keys))
    why: str | Problem = "its budget is used up"
    if budget_left > 0 and workload is not None:
        gateway = services.gateway()
        key, secret = _create_key(services, run, budget_left)
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


def _create_key(services: Services, run: Run, budget_left: Decimal) -> tuple[UUID, str]:
    terms = KeyTerms(acts_for_others=True, budget=from_decimal(budget_left), budget_period="total", tags=("replay",))
    expires = services.clock.now() + timedelta(hours=KEY_HOURS)
    with services.transaction() as conn:
        created = identity.create_key(conn, SYSTEM, run.workload, None, terms, expires)
        store.add_key(conn, run.id, created[0], PURPOSE)
        number = policy_number(conn)
    policy_effect(services, number)
    return created


def _replay_calls(services: Services, run: Run, runner: UUID, gateway: _GatewayClient) -> str | Problem:
    """Replay the calls of a run. Returns why it ended early, or an empty string; a `Problem` if its judge gives
    unreadable answers or none."""
    read = 0
    judge = _JudgeWatch(run.judge)
    try:
        while True:
            with services.transaction() as conn:
                if not store.heartbeat(conn, run.id, runner):
                    return "taken over"
                queued = store.take_next_call(conn, run.id)
                content = None if queued is None else _stored_content(services, conn, queued.call)
            if queued is None:
                return ""
            read += content is not None
            try:
                result = _replay_call(run, queued, content, gateway)
            except Unavailable as error:
                if error.code == WAITS_CODE:
                    with services.transaction() as conn:
                        store.put_back(conn, run.id, queued.call)
                raise
            with services.transaction() as conn:
                store.record_answer(conn, run.id, result)
            if (problem := judge.problem(result, services.clock.now())) is not None:
                return problem
            if result.why in _BUDGET_CODES:
                return "its budget, or one of its workload's, has not enough left for what a further call may cost"
    finally:
        with services.transaction() as conn:
            detail = {"run": str(run.id), "calls": read, "candidate": run.candidate}
            record(conn, action="content.replayed", actor=SYSTEM, subject=f"workload/{run.workload}", detail=detail)


class _JudgeWatch:
    """Recent answers of a judge, to stop a run whose judge does not work."""

    def __init__(self, judge: str) -> None:
        self._judge = judge
        self._replies: deque[str | None] = deque(maxlen=UNREAD)
        self._failures: list[datetime] = []

    def problem(self, result: ReplayResult, now: datetime) -> Problem | None:
        """Why the judge should not be called again, after this result; None if it works."""
        if result.said is not None:
            self._replies.appendleft(result.said if result.kept is None else None)
            self._failures.clear()
        if result.code:
            self._failures.append(now)
        if len(self._failures) >= UNASKED:
            return unreachable_problem(self._judge, len(self._failures), self._failures[0], result.code)
        return unreadable_problem(self._judge, list(self._replies))


def _stored_content(services: Services, conn: Connection[Any], call: UUID) -> tuple[dict[str, Any], str] | None:
    """(request body, answer text) of a stored call; None if it was deleted or erased, or is not a conversation."""
    stored = content_store.find_content(conn, call)
    text = None if stored is None else SubjectKeys.of(services.home).unseal(conn, stored.sealed)
    if text is None:
        return None
    value = json.loads(text.partition("\n")[2])
    body, answer = value["prompt"], text_of(json.dumps(value["answer"]).encode())
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list) or not answer:
        return None
    return body, answer


def _replay_call(
    run: Run, queued: QueuedCall, content: tuple[dict[str, Any], str] | None, gateway: _GatewayClient
) -> ReplayResult:
    """Replay one call through the gateway. Raises `Unavailable` (`WAITS_CODE`) if it can only be made later."""
    if content is None:
        return ReplayResult(queued.call, None, None, False, Decimal(0), "content_gone")
    body, answer = content
    value = {
        "run": str(run.id), "call": str(queued.call), "endpoint": queued.endpoint, "body": body, "answer": answer,
        "candidate": run.candidate, "judge": run.judge,
    }  # fmt: skip
    status, reply = gateway.post(value, queued.email)
    if status != 200:
        code = str((reply.get("error") or {}).get("code") or f"status_{status}")
        if code == "key_expired":
            raise Unavailable(
                "the key of the run has expired", code=WAITS_CODE, hint="The run continues with a new key."
            )
        return ReplayResult(queued.call, None, None, False, Decimal(0), code)
    if reply["code"] in _TEMPORARY_CODES and not reply["answered"] and not reply["cost"]:
        hint = "The run continues by itself."
        raise Unavailable(f"the gateway refuses at the moment: {reply['code']}", code=WAITS_CODE, hint=hint)
    score, cost_usd = reply["score"], Decimal(int(reply["cost"])) / PICO
    why = "" if score is not None else _unjudged_reason(reply)
    keeps_quality = None if score is None else float(score) >= 0.5
    if not reply["answered"] and reply["cost"]:
        keeps_quality, why = False, ""  # a candidate that costs money and gives no answer does not keep the quality
    code = str(reply["code"]) if why == store.OPEN else ""
    replayed_call = UUID(reply["call"])
    return ReplayResult(
        queued.call, replayed_call, keeps_quality, bool(reply["contradicted"]), cost_usd, why, reply.get("said"), code
    )


def _unjudged_reason(reply: dict[str, Any]) -> str:
    """Why an answer was not judged: the code of an exhausted budget, which ends the run, or that the judge left it
    open."""
    code = str(reply["code"])
    return (
        store.OPEN
        if reply["answered"] and reply["basis"] != "none" and code not in _BUDGET_CODES
        else code or "not_judged"
    )


class _GatewayClient:
    """Client of the gateway's replay endpoint, with the run's key."""

    def __init__(self, gateway: str, secret: str, with_person: bool) -> None:
        self._url = urljoin(gateway, "/api/replay")
        self._secret = secret
        self._with_person = with_person
        """Whether replays are made on behalf of the original people."""

    def post(self, value: dict[str, Any], email: str | None) -> tuple[int, dict[str, Any]]:
        """(status, JSON) of one replay. Retried while the gateways do not know the key yet. Raises `Unavailable`."""
        person = email if self._with_person else None
        deadline = time.monotonic() + KEY_WAIT_SECONDS
        while True:
            status, reply = ask.post(self._url, self._secret, value, person=person, seconds=ANSWER_SECONDS)
            if status != 401 or time.monotonic() > deadline:
                return status, reply
            time.sleep(0.1)


def _monthly_calls(conn: Connection[Any], run: Run, now: datetime) -> dict[str, float]:
    """Feature -> calls per month that the present deployment answers for callers, extrapolated from the first of them
    if that is less than a month ago.

    Cached answers are excluded, since they cost nothing either way. Calls of guardrails and cascades stay at that
    deployment and are excluded in the same proportion for each feature.
    """
    query = {
        "since": now - timedelta(days=store.DAYS), "until": now, "workload": run.workload, "status": "ok",
        "deployment": run.current, "demo": None,
    }  # fmt: skip
    counts: dict[str, float] = {}
    first = now
    for row in rollup_store.calls_by(conn, ["day", "feature"], query):
        name = row["feature"] or ""
        if not name.startswith(BUDGET_PREFIX):  # not the calls of experiments
            first = min(first, datetime.combine(row["day"], datetime.min.time(), UTC))
            answered = (row["calls"] or 0) - (row["cached"] or 0)
            counts[name] = counts.get(name, 0.0) + float(answered)
    days = max(1.0, min(float(store.DAYS), (now - first) / timedelta(days=1)))
    internal_calls = sum(
        count
        for (purpose,), count in rollup_store.answers_by(conn, ["purpose"], query).items()
        if purpose in INTERNAL_PURPOSES
    )
    callers_share = max(0.0, 1 - internal_calls / total) if (total := sum(counts.values())) else 0.0
    return {name: calls * callers_share * store.DAYS / days for name, calls in counts.items()}
