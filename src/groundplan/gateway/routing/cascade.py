"""Cascades: the small first deployment is asked for the whole answer, which is checked before the client gets any of
it, even if it wants a stream; if a check fails, the other deployments answer.

The first try is an attempt of the call like any other: reserved, journalled before it is sent, and settled before its
answer is checked. Judges and further answers are sub-calls, with the same key and budgets. The other deployments each
need a reservation of their own. The receipt has the results of the checks; a check that cannot be run has failed. Only
for chat completions of one answer without functions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from groundplan.blueprint.model import Cascade, Deployment
from groundplan.core.errors import Denied, GroundplanError
from groundplan.core.money import PICO
from groundplan.economics.routing.decide import agree
from groundplan.gateway.call import admit, settle, stored_answers
from groundplan.gateway.call.ask import fork_ask, reset_left_out
from groundplan.gateway.call.attempts.failure import AttemptFailed
from groundplan.gateway.call.attempts.sequence import AttemptSequence
from groundplan.gateway.call.delivery.stream_end import finish_stream
from groundplan.gateway.call.delivery.whole_answer import send_whole
from groundplan.gateway.call.grounding.citation_check import check_whole_answer
from groundplan.gateway.call.serve import serve
from groundplan.gateway.call.subcall import new_chat_subcall, run_subcall
from groundplan.gateway.guard import judge
from groundplan.gateway.guard.kills import check_not_stopped
from groundplan.gateway.guard.run import cites_passage
from groundplan.gateway.guard.schema import schema_error
from groundplan.gateway.routing.routes import CASCADE
from groundplan.gateway.surfaces.answer_text import visible_text
from groundplan.gateway.surfaces.answers import facts
from groundplan.gateway.surfaces.codec import UpstreamAnswer

if TYPE_CHECKING:
    from groundplan.gateway.call.ask import Ask
    from groundplan.gateway.call.context import Gateway
    from groundplan.gateway.call.exchange import Exchange

FLAG = "cascade"
"""Flag of the settlement of a first try."""
_STREAM_FIELDS = ("stream", "stream_options")
_TRUE = msgspec.Raw(b"true")
_VARIED_TEMPERATURE = msgspec.Raw(b"0.7")
"""Temperature of further answers: at 0 they would be the same as the first."""
_OFF_VALUES = (b"null", b"false")
_object = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """The answer of the first deployment, which is settled."""

    deployment: Deployment
    answered: UpstreamAnswer
    left_out: frozenset[str]
    """See `Ask.left_out`."""


async def serve_routed(gateway: Gateway, exchange: Exchange) -> None:
    """Run step 5 of a call that was routed. Raises as `serve` does."""
    workload, route = exchange.workload, exchange.route
    if workload is None or route is None:
        raise AssertionError("not routed")
    rule = workload.routing.cascade if workload.routing is not None else None
    if rule is None or route.by != CASCADE:
        await serve(gateway, exchange)
        if exchange.deployment is not None and exchange.status == "ok" and exchange.attempt_count == 1:
            gateway.routes.learn(workload.name, exchange.deployment.model, exchange.cost / PICO, exchange.call)
        return
    attempts = AttemptSequence(gateway, exchange, workload)
    is_answered, spare = await _try_first(gateway, exchange, attempts, rule)
    if is_answered:
        return
    try:
        await serve(gateway, exchange, attempts)
    except GroundplanError as error:
        refused = isinstance(error, Denied) and error.code != admit.COST_PER_CALL
        if refused or spare is None or exchange.response.started or not gateway.journal.healthy:
            raise
        await _send_answer(gateway, exchange, spare)


async def _try_first(
    gateway: Gateway, exchange: Exchange, attempts: AttemptSequence, rule: Cascade
) -> tuple[bool, FirstAnswer | None]:
    """Try the first deployment: (whether the call is answered, an answer that failed its checks and may be given where
    no other deployment answers).

    Raises a `GroundplanError` where the call as a whole is to be refused.
    """
    why = "" if _can_afford_both(exchange, rule) else "both answers together may cost more than one call may"
    if exchange.workload is not None and exchange.workload.attempts < 2:
        why = "a call may make one attempt only"
    if why:
        _note_outcome(exchange, rule.first, why, ())
        attempts.exclude(rule.first)
        return False, None
    first = await _ask_first(gateway, exchange, attempts, rule)
    if first is None:
        _note_outcome(exchange, rule.first, f"it could not answer: {attempts.reason}", ())
        return False, None
    try:
        async with asyncio.timeout(attempts.remaining_seconds / 2):
            passed, why = await _run_checks(gateway, exchange, rule, first.answered)
    except TimeoutError:
        passed, why = (), "its checks took too long"
    not_streamable = exchange.ask is not None and exchange.ask.stream and _events(exchange, first.answered) is None
    if not_streamable and not why:
        why = "its answer cannot be streamed without losing something"
    if why:
        _note_outcome(exchange, rule.first, why, passed)
        return False, first if rule.give and not not_streamable else None
    _note_outcome(exchange, rule.first, "", passed)
    await _send_answer(gateway, exchange, first)
    return True, None


def _can_afford_both(exchange: Exchange, rule: Cascade) -> bool:
    """Whether the call, with a first try and another answer after it, stays within what it may cost."""
    plan, others = exchange.plan, [cost for name, cost in exchange.bounds.items() if name != rule.first]
    if plan is None or not others:
        return False
    try:
        admit.check_next_attempt(exchange, plan, exchange.bounds.get(rule.first, 0) + max(others))
    except Denied:
        return False
    return True


async def _ask_first(
    gateway: Gateway, exchange: Exchange, attempts: AttemptSequence, rule: Cascade
) -> FirstAnswer | None:
    """Ask the first deployment, and settle; None where it gave no answer. It has half of the remaining time, so that
    others can still answer. After a stale connection it is asked once more."""
    ask = exchange.ask
    if ask is None:
        raise AssertionError("not admitted")
    exchange.ask = own_ask = fork_ask(_unstreamed_request(ask, rule))
    exchange.attempt_flags = (FLAG,)
    try:
        while (deployment := await attempts.take_named(rule.first)) is not None:
            attempt = attempts.begin_attempt(deployment)
            attempt.deadline = (attempt.deadline + gateway.loop.time()) / 2
            try:
                await attempt.open()
            except AttemptFailed as failed:
                attempts.handle_failure(failed)
                if not _can_afford_both(exchange, rule):
                    attempts.exclude(rule.first)
                    return None
                if attempts.retry_delay:
                    await asyncio.sleep(attempts.retry_delay)
                continue
            attempts.record_latency(attempt)
            answered = attempt.take_answer()
            if answered is None:
                attempts.reason = f"it refused the request with {attempt.status}"
                return None
            attempts.record_success(attempt)
            return FirstAnswer(deployment, answered, frozenset(own_ask.left_out or ()))
        return None
    finally:
        exchange.ask, exchange.attempt_flags = ask, ()


def _unstreamed_request(ask: Ask, rule: Cascade) -> Ask:
    """The request without streaming, and with the log probabilities of tokens where they are checked."""
    wants = rule.confidence is not None and bytes(ask.fields.get("logprobs", b"null")) in _OFF_VALUES
    if not ask.stream and not wants:
        return ask
    fields = {name: value for name, value in ask.fields.items() if name not in _STREAM_FIELDS}
    if wants:
        fields["logprobs"] = _TRUE
    return replace(ask, fields=fields, stream=False, include_usage=False, body=b"")


@dataclass(frozen=True, slots=True)
class _CheckedAnswer:
    """The answer that the checks look at."""

    gateway: Gateway
    exchange: Exchange
    rule: Cascade
    body: dict[str, Any]
    text: str


async def _run_checks(
    gateway: Gateway, exchange: Exchange, rule: Cascade, answered: UpstreamAnswer
) -> tuple[tuple[str, ...], str]:
    """(checks that passed, why the next one did not; empty where all did)"""
    body = _object(answered.data)
    answer = _CheckedAnswer(gateway, exchange, rule, body, visible_text(body))
    if not answer.text.strip():
        return (), "it said nothing"
    passed: list[str] = []
    for name, check in _CHECKS.items():
        why = await check(answer)
        if why:
            return tuple(passed), why
        if why is not None:
            passed.append(name)
    return tuple(passed), ""


async def _schema(answer: _CheckedAnswer) -> str | None:
    """Why the answer does not pass this check; empty: it passes; None: not checked. The same for all checks below."""
    if answer.rule.schema is None:
        return None
    wrong = schema_error(answer.rule.schema, answer.text)
    return f"its answer does not fit the schema ({wrong})" if wrong else ""


async def _grounded(answer: _CheckedAnswer) -> str | None:
    if not answer.rule.grounded:
        return None
    return "" if cites_passage(answer.text, len(answer.exchange.passages)) else "its answer cites no passage"


async def _confidence(answer: _CheckedAnswer) -> str | None:
    if answer.rule.confidence is None:
        return None
    sure = agree.confidence(_logprobs(answer.body))
    if sure is None:
        return "its upstream told no probabilities"
    return "" if sure >= answer.rule.confidence else f"it was sure to {sure:.0%} only"


async def _agreement(answer: _CheckedAnswer) -> str | None:
    if answer.rule.agreement is None:
        return None
    wanted = answer.rule.agreement - 1
    others = await _further_answers(answer.gateway, answer.exchange, answer.rule.first, wanted)
    agreed = len(others) == wanted and agree.all_agree([answer.text, *others])
    return "" if agreed else "its answers do not agree"


async def _judge(answer: _CheckedAnswer) -> str | None:
    if answer.rule.judge is None:
        return None
    question = answer.exchange.ask.query if answer.exchange.ask is not None else ""
    shown = f"QUESTION:\n{question}\n\nANSWER:\n{answer.text}"
    refused = await judge.ask_judge(answer.gateway, answer.exchange, answer.rule.judge, shown, "cascade")
    if refused is None:
        return "the judge did not say"
    return "the judge did not let it pass" if refused else ""


_CHECKS = {
    "schema": _schema, "grounded": _grounded, "confidence": _confidence, "agreement": _agreement, "judge": _judge,
}  # fmt: skip
"""Checks by name, the cheapest first."""


def _logprobs(body: dict[str, Any]) -> Sequence[float]:
    try:
        tokens = body["choices"][0]["logprobs"]["content"]
        return [float(token["logprob"]) for token in tokens]
    except (LookupError, TypeError, ValueError):
        return ()


async def _further_answers(gateway: Gateway, exchange: Exchange, deployment: str, count: int) -> list[str]:
    """The texts of `count` further answers to the same question, fewer where a call fails."""
    found = await asyncio.gather(*(_further_answer(gateway, exchange, deployment) for _ in range(count)))
    return [text for text in found if text is not None]


async def _further_answer(gateway: Gateway, exchange: Exchange, deployment: str) -> str | None:
    ask = exchange.ask
    if ask is None:
        raise AssertionError("not admitted")
    kept = {name: value for name, value in ask.fields.items() if name not in (*_STREAM_FIELDS, "seed", "logprobs")}
    fields = {**kept, "model": msgspec.Raw(msgspec.json.encode(deployment)), "temperature": _VARIED_TEMPERATURE}
    own = new_chat_subcall(exchange, exchange.interface, fields, "cascade")
    own.request.headers[b"cache-control"] = b"no-store"
    answer = await run_subcall(gateway, own)
    try:
        return None if answer is None else visible_text(_object(answer))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


# to the caller --------------------------------------------------------------------------------------------------------


async def _send_answer(gateway: Gateway, exchange: Exchange, first: FirstAnswer) -> None:
    """Send an answer that is settled already, streamed where the caller wants that. Raises the refusal of a guardrail
    or a kill."""
    answered, interface, ask = first.answered, exchange.interface, exchange.ask
    if ask is None:
        raise AssertionError("not admitted")
    reset_left_out(ask, first.left_out)
    exchange.deployment = first.deployment
    check_not_stopped(gateway.live.policy, exchange)
    if bytes(ask.fields.get("logprobs", b"null")) in _OFF_VALUES:
        answered = _without_logprobs(answered)
    if exchange.guard is not None:
        answered = await exchange.guard.check_answer(exchange, answered)
    if exchange.flight is not None:
        exchange.flight.whole = answered.data
    if interface.can_store_answers and exchange.guard is None:
        await stored_answers.keep(gateway, exchange, answered.data)
    check_not_stopped(gateway.live.policy, exchange)
    if exchange.passages:
        check_whole_answer(gateway, exchange, answered.data)
    told = facts(exchange, settle.remaining_budget(gateway, exchange))
    if not ask.stream:
        await send_whole(gateway, exchange, "ok", 200, interface.with_facts(answered.data, told), "")
        return
    relay = interface.codec(first.deployment).new_relay(ask)
    data = b"".join(relay.feed(event) for event in _events(exchange, answered) or ())
    await finish_stream(gateway, exchange, "ok", data + relay.closing_events(told), "")


def _without_logprobs(answered: UpstreamAnswer) -> UpstreamAnswer:
    if b'"logprobs"' not in answered.data:
        return answered
    body = _object(answered.data)
    for choice in body["choices"]:
        choice.pop("logprobs", None)
    return UpstreamAnswer(msgspec.json.encode(body), answered.usage)


def _events(exchange: Exchange, answered: UpstreamAnswer) -> tuple[bytes, ...] | None:
    replay_forms = exchange.interface.replay_forms
    return None if replay_forms is None else replay_forms.to_events(answered.data)


def _note_outcome(exchange: Exchange, name: str, why: str, passed: Sequence[str]) -> None:
    """Note the outcome of the first try in the route, for the receipt."""
    route = exchange.route
    if route is None:
        return
    checks = ", ".join(passed)
    if not why:
        reason = f"{name} was tried first, and its answer passed: {checks}"
    else:
        reason = f"{name} was tried first, and others were asked, since {why}"
        reason += f"; it passed: {checks}" if checks else ""
    exchange.route = msgspec.structs.replace(route, by=CASCADE, reason=reason, escalated=bool(why))
