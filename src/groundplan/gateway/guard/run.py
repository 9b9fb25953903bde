"""Runs the guardrails of one call: on the input at admission, on passages, and on the answer before any of it leaves.

The checks themselves are governance's; this module decides when they run, what their time is counted as, and what
happens if one cannot be made. A call of a workload without guardrails, reviews and rules about tools has none of this.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from groundplan.blueprint.model import Guardrails
from groundplan.core.errors import Denied, Unavailable
from groundplan.gateway.guard import judge, media, presidio
from groundplan.gateway.guard.relay import GuardedRelay, refusal_error
from groundplan.gateway.guard.schema import schema_error
from groundplan.gateway.http.surrogates import decode_json
from groundplan.gateway.offload import CHECKED_BYTES, WorkSteps, in_thread, run_steps
from groundplan.gateway.policy.gate import ToolUser
from groundplan.gateway.surfaces import answer_text
from groundplan.gateway.surfaces.body import unreadable_body
from groundplan.gateway.surfaces.codec import Relay, UpstreamAnswer
from groundplan.gateway.telemetry import content_text
from groundplan.governance.guardrails.guard import (
    NO_ROLES,
    Findings,
    Guard,
    checked_answer,
    checked_body,
    checked_passage,
    checked_text,
    restore_strings,
    rewrite_texts,
    texts,
)
from groundplan.governance.guardrails.language import disallowed_language
from groundplan.governance.guardrails.masks import Masks
from groundplan.governance.guardrails.model import Hit, Refusal
from groundplan.governance.guardrails.window import Refused
from groundplan.governance.policy.calls import Tool

if TYPE_CHECKING:
    from groundplan.gateway.call.ask import Ask, Passage
    from groundplan.gateway.call.context import Gateway
    from groundplan.gateway.call.exchange import Exchange
    from groundplan.gateway.policy.catalog import Plan
    from groundplan.gateway.policy.snapshot import Policy

NO_GUARDRAILS = Guard.of(Guardrails())
"""For workloads without guardrails whose function calls or answers are checked all the same."""
_FUNCTION_FIELDS = frozenset({"tools", "functions"})
"""Request fields that offer functions to a model."""
_encode = msgspec.json.encode


def needs_guard(exchange: Exchange, plan: Plan, policy: Policy) -> bool:
    """Whether anything of a call has to be guarded."""
    if plan.guard is not None or plan.workload.review is not None:
        return True
    ask, catalog = exchange.ask, exchange.catalog
    if ask is None:
        return False
    offers_tools = ask.offers_found_tools or not _FUNCTION_FIELDS.isdisjoint(ask.fields)
    if not offers_tools and exchange.endpoint != media.REALTIME:
        return False  # no function is offered, so none can be called
    if catalog is not None and catalog.gate is not None and catalog.gate.has_tool_rules(plan.workload.name):
        return True
    return policy.tools_stopped


async def check_input(gateway: Gateway, exchange: Exchange, plan: Plan) -> None:
    """Run `start_guard`, off the loop for a long text, then the checks that another process makes. Raises as
    `start_guard`."""
    await run_steps(start_guard(gateway, exchange, plan), offload=len(exchange.request.body) > CHECKED_BYTES)
    if exchange.guard is not None:
        await exchange.guard.check_personal_input(exchange)


def start_guard(gateway: Gateway, exchange: Exchange, plan: Plan, *, records_passes: bool = True) -> WorkSteps[None]:
    """Check the input, and mask it if declared. `records_passes`: also findings that let the input pass are recorded,
    since nobody checks it again. Raises `Denied` (`guardrail_...`), `Invalid`."""
    guard = exchange.guard = CallGuardrails(gateway, exchange, plan.guard or NO_GUARDRAILS)
    guard.records_findings = records_passes
    if exchange.ask is not None:
        guard.check_form(exchange, exchange.ask)
    checks_input = not guard.guard.input.is_empty or exchange.endpoint == media.SPEECH
    if plan.guard is None or not checks_input or exchange.request.stream is not None:
        return
    started = time.perf_counter_ns()
    try:
        yield partial(guard.check_body, exchange)
    finally:
        guard.record_time(started, "input")
        guard.record_findings(exchange)


class CallGuardrails:
    """The guardrails of one call."""

    __slots__ = ("_gateway", "call_rule", "findings", "guard", "masks", "records_findings", "skips_review", "spent_ns")

    def __init__(self, gateway: Gateway, exchange: Exchange, guard: Guard) -> None:
        self.guard = guard
        self.masks = Masks()
        self.findings = Findings()
        self.spent_ns = 0
        """CPU and waiting of all checks, without the judge."""
        self.skips_review = False
        self.records_findings = True
        self.call_rule = _CallRule(gateway, exchange, guard)
        self._gateway = gateway

    # input ------------------------------------------------------------------------------------------------------------

    @contextmanager
    def _recording(self, exchange: Exchange) -> Iterator[None]:
        """Record what the checks inside find. What they refuse is raised as `Denied`."""
        try:
            yield
        except Refused as refused:
            raise refusal_error(refused.refusal) from refused
        finally:
            self.record_findings(exchange)

    def check_body(self, exchange: Exchange) -> None:
        """Check the body, and mask it if declared. Touches nothing but this call. Raises `Denied`, `Invalid`."""
        request = exchange.request
        body = _decode_request(request.body)
        try:
            checked = checked_body(self.guard, body, len(request.body), self.masks, self.findings)
            if exchange.endpoint == media.SPEECH:
                checked = self._check_spoken(checked)
        except Refused as refused:
            raise refusal_error(refused.refusal) from refused
        if checked is not body:
            request.body = _encode(checked)
            exchange.ask = exchange.interface.read(request)

    def check_form(self, exchange: Exchange, ask: Ask) -> None:
        """Refuse by name what no check can read, and check the texts of an upload. Raises `Denied`."""
        guard, endpoint = self.guard, exchange.endpoint
        found = media.unchecked_refusals(guard, ask, endpoint)
        for place, hit in media.unchecked_hits(found):
            self.findings.add(place, hit)
        with self._recording(exchange):
            if found and not guard.shadow:
                raise media.unchecked_error(found)
            if endpoint in media.UNREADABLE_ENDPOINTS and needs_review(exchange):
                raise media.review_error(exchange)
            if (
                endpoint in media.TRANSCRIPTION_ENDPOINTS
                and ask.stream
                and (media.demands_output_checks(guard) or needs_review(exchange))
            ):
                raise media.stream_error()
            if ask.upload is not None and guard.checks_input:
                media.check_form_texts(ask.upload, lambda text: checked_text(guard, text, self.masks, self.findings))

    def check_earlier_items(self, exchange: Exchange, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Earlier items that the request refers to, stored perhaps before there were guardrails, as the model may see
        them. Raises `Denied`."""
        started = time.perf_counter_ns()
        with self._recording(exchange):
            try:
                checked: dict[str, Any] = checked_body(self.guard, {"input": items}, 0, self.masks, self.findings)
            finally:
                self.record_time(started, "input")
        return list(checked["input"])

    async def check_personal_input(self, exchange: Exchange) -> None:
        """Check the input with Presidio if declared. Raises `Denied`."""
        upload = exchange.ask.upload if exchange.ask is not None else None
        conversation = upload is None and exchange.request.stream is not None  # `check_session` refuses it
        if not self.guard.presidio_input or conversation:
            return
        input_texts = texts(_decode_request(exchange.request.body)) if upload is None else upload.texts
        try:
            await self._check_personal("input", self.guard.presidio_input, exchange.id, "\n".join(input_texts))
        finally:
            self.record_findings(exchange)

    def check_passages(self, found: list[Passage]) -> list[Passage]:
        """The passages, or what of them the model may see."""
        if self.guard.passages.is_empty:
            return found
        started = time.perf_counter_ns()
        kept = []
        for passage in found:
            text = checked_passage(self.guard, passage.text, self.masks, self.findings)
            head = passage.head and checked_passage(self.guard, passage.head, self.masks, self.findings)
            if text is None or head is None:
                continue
            same = text is passage.text and head is passage.head
            kept.append(passage if same else msgspec.structs.replace(passage, text=text, head=head))
        self.record_time(started, "passages")
        return kept

    def check_reused_answer(self, text: str) -> str:
        """Another call's answer as the model may see it, checked like input; empty if it may not."""
        try:
            return checked_text(self.guard, self.masks.remask(text), self.masks, Findings())
        except Refused:
            return ""

    # output -----------------------------------------------------------------------------------------------------------

    @property
    def needs_whole_answer(self) -> bool:
        """Whether nothing may leave before the answer is complete."""
        return bool(self.guard.whole_answer_checks)

    def guarded_relay(self, inner: Relay, exchange: Exchange) -> GuardedRelay | None:
        """The relay of one attempt's stream with the checks in it; None if nothing of this surface is checked."""
        if exchange.endpoint not in answer_text.SURFACES:
            return None
        waits = self.needs_whole_answer or needs_review(exchange)
        sent = None if exchange.continuation is None else exchange.continuation.sent
        earlier = "" if sent is None else self.masks.remask(sent.text)
        return GuardedRelay(inner, self.guard, self.masks, self.call_rule, whole=waits, earlier_text=earlier)

    def adopt(self, relay: GuardedRelay) -> None:
        """Take the findings of the attempt whose stream the caller gets, even if it is a refusal."""
        relay.adopt(self.findings)

    async def finish_stream(self, exchange: Exchange, relay: GuardedRelay) -> None:
        """Run the remaining checks once the upstream of `relay` has streamed everything, and those that need the whole
        answer. Raises `DeniedAnswer`."""
        relay.finish()
        try:
            texts = [self.masks.restore(text) for text in relay.texts]
            await self._check_whole(exchange, texts, lambda: _streamed_calls(relay.held))
        except Denied as error:
            raise relay.stop_with(error) from error
        finally:
            self.record_findings(exchange)

    async def check_answer(self, exchange: Exchange, answered: UpstreamAnswer) -> UpstreamAnswer:
        """A complete answer as the caller may see it. Raises `Denied`, `Unavailable`."""
        if exchange.endpoint in media.TRANSCRIPTION_ENDPOINTS:
            return await self._check_transcript(exchange, answered)
        if exchange.endpoint in media.IMAGE_ENDPOINTS:
            return self._check_image_answer(exchange, answered)
        if exchange.endpoint == media.RERANK and self.masks:
            return UpstreamAnswer(_encode(restore_strings(_decode_answer(answered.data), self.masks)), answered.usage)
        if answered.kind or exchange.endpoint not in answer_text.SURFACES:
            return answered
        body = _decode_answer(answered.data)
        with self._recording(exchange):
            checked = await self._check_body_texts(body, long=len(answered.data) > CHECKED_BYTES)
            await self._check_whole(
                exchange, answer_text.answer_texts(checked), lambda: answer_text.call_texts(checked)
            )
        return answered if checked is body else UpstreamAnswer(_encode(checked), answered.usage)

    def _check_spoken(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body with the text to be spoken as the checks of answers allow it, since that is what will be heard.
        Raises `Refused`."""
        text = checked_answer(self.guard, body["input"], Masks(), self.findings)
        return body if text == body["input"] else {**body, "input": text}

    async def _check_transcript(self, exchange: Exchange, answered: UpstreamAnswer) -> UpstreamAnswer:
        """A transcript as the caller may see it. Raises `Denied`, `Unavailable`."""
        started = time.perf_counter_ns()
        with self._recording(exchange):
            if answered.kind:
                text = media.check_plain_transcript(answered.data.decode(), self._check_text)
                checked = UpstreamAnswer(text.encode(), answered.usage, answered.kind)
            else:
                body = _decode_answer(answered.data)
                found = media.check_transcript(body, self._check_text)
                text = str(found.get("text", ""))
                checked = answered if found is body else UpstreamAnswer(_encode(found), answered.usage)
            self.record_time(started, "output")
            await self._check_whole(exchange, [text])
        return checked

    def _check_image_answer(self, exchange: Exchange, answered: UpstreamAnswer) -> UpstreamAnswer:
        """An answer with images; only its revised prompts are text. Raises `Denied`."""
        with self._recording(exchange):
            body = _decode_answer(answered.data)
            checked = media.check_revised_prompts(body, self._check_text)
        return answered if checked is body else UpstreamAnswer(_encode(checked), answered.usage)

    def _check_text(self, text: str) -> str:
        return checked_answer(self.guard, text, self.masks, self.findings)

    async def _check_body_texts(self, body: Any, *, long: bool) -> Any:
        started = time.perf_counter_ns()
        if self.guard.output.is_too_large(len(answer_text.visible_text(body).encode())):
            self.refuse("output", "max_size", "")
        for name in answer_text.called_names(body):
            if self.call_rule(name):
                self.refuse("output", "tools", name[:60])
        checked = body
        if self.guard.affects_answers(self.masks):
            respell = partial(rewrite_texts, body, self.check_or_restore, NO_ROLES)
            checked = await in_thread(respell, checks=True) if long else respell()
            if self.masks:
                checked = answer_text.tool_inputs(checked, self.masks.restore)
            if checked is not body:
                checked = answer_text.without_logprobs(checked)
        self.record_time(started, "output")
        return checked

    def check_or_restore(self, text: str, own: bool) -> str:
        """A complete text of an answer after its check; `own`: it repeats the input. Raises `Refused`."""
        return self.masks.restore(text) if own else checked_answer(self.guard, text, self.masks, self.findings)

    async def _check_whole(self, exchange: Exchange, texts: list[str], calls: Callable[[], list[str]] = list) -> None:
        """Run the checks that need the whole answer, and hold it for a reviewer if the workload has one, with the
        `call_texts` of functions. `texts`: one for each choice, none if all of them only call functions, which these
        checks do not look at. Raises `Denied`, `Unavailable`."""
        gateway, guard, text = self._gateway, self.guard, "\n".join(filter(None, texts))
        for check, kind in self._failed_checks(exchange, texts, text):
            self.refuse("output", check, kind)
        if guard.presidio and texts:
            await self._check_personal("output", guard.presidio, exchange.id, text)
        if guard.judge is not None and texts:
            shown = self.masks.remask(text)  # the judge is a model, too
            found = await judge.ask_judge(gateway, exchange, guard.judge, shown, "guardrail")
            if found is None and not guard.fail_open:
                self.refuse("output", "failed", "judge")
            elif found:
                self.refuse("output", "judge", "")
        if needs_review(exchange) and not self.skips_review and gateway.reviews is not None:
            await gateway.reviews.hold(
                exchange, "\n".join(filter(None, (text, *(f"calls {each}" for each in calls()))))
            )

    async def _check_personal(self, place: str, action: str, call: bytes, text: str) -> None:
        """Raise `Denied` if personal data is refused, or if the check failed and that is to be refused."""
        started = time.perf_counter_ns()
        kinds = await presidio.find_personal_data(self._gateway, call, text)
        self.record_time(started, place)
        if kinds is None and not self.guard.fail_open:
            self.refuse(place, "failed", "presidio")
        for kind in kinds or ():
            if action == "block":
                self.refuse(place, "presidio", kind)
            else:
                self.findings.add(place, Hit("presidio", "flag", kind=kind))

    def _failed_checks(self, exchange: Exchange, texts: list[str], text: str) -> list[tuple[str, str]]:
        guard = self.guard
        found: list[tuple[str, str]] = []
        if guard.schema is not None:
            error = next(filter(None, (schema_error(guard.schema, each) for each in texts)), "")
            found += [("schema", error)] if error else []
        if guard.grounded and not all(cites_passage(each, len(exchange.passages)) for each in texts):
            found.append(("grounded", ""))
        if guard.output.languages and (spoken := disallowed_language(text, guard.output.languages)):
            found.append(("languages", spoken))
        return found

    def refuse(self, place: str, check: str, kind: str) -> None:
        """Add a finding that blocks, and raise `Denied` for it unless findings are only watched."""
        self.findings.add(place, Hit(check, "block", kind=kind))
        if not self.guard.shadow:
            raise refusal_error(Refusal(place, check, kind))

    # reporting --------------------------------------------------------------------------------------------------------

    def report(self) -> list[dict[str, Any]]:
        """The findings, for the `groundplan` object of the answer."""
        shadow = self.guard.shadow
        return [
            {"place": place, "check": check, "done": done, "finds": finds, "shadow": shadow}
            for (place, check, done), finds in sorted(self.findings.counts.items())
        ]

    def record_findings(self, exchange: Exchange) -> None:
        """Add findings since the last call to the worker's counts."""
        counts, workload = self._gateway.guard_counts, exchange.workload
        if counts is not None and workload is not None and self.findings.counts and self.records_findings:
            counts.add(exchange.call, workload.name, self.findings.counts, shadow=self.guard.shadow)

    def record_time(self, started: int, place: str) -> None:
        self.spent_ns += time.perf_counter_ns() - started
        if self.spent_ns > self.guard.budget_ns:
            self.findings.counts[place, "budget", "flag"] = 1


class _CallRule:
    """Which functions an answer may call: by the workload, the company's rules and the kill switches."""

    __slots__ = ("_decided", "_exchange", "_gateway", "_guard")

    def __init__(self, gateway: Gateway, exchange: Exchange, guard: Guard) -> None:
        self._gateway = gateway
        self._exchange = exchange
        self._guard = guard
        self._decided: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        """Why a function may not be called; empty if it may. Decided once per answer."""
        reason = self._decided.get(name)
        if reason is None:
            reason = self._decided[name] = self.decide_now(name)
        return reason

    def decide_now(self, name: str) -> str:
        """As `__call__`, decided anew: a conversation may last longer than the hours in which a tool may be used."""
        exchange, policy = self._exchange, self._gateway.live.policy
        if self._guard.tools is not None and name not in self._guard.tools:
            return "tools"
        if f"tool/{name}" in policy.kills:
            return "stopped"
        catalog, key, workload = exchange.catalog, exchange.key, exchange.workload
        if catalog is None or catalog.gate is None or key is None or workload is None:
            return ""
        now = self._gateway.clock.seconds()
        verdict = catalog.gate.decide_tool(policy, ToolUser(workload.name, key, exchange.person), Tool(name), now)
        return "" if verdict.allowed else verdict.code


def _decode_request(data: bytes) -> Any:
    """The value of a request's JSON. Raises `Invalid` for a number that cannot be represented here, and so not be
    checked."""
    try:
        return decode_json(data)
    except msgspec.DecodeError as error:
        raise unreadable_body(error) from error


def _decode_answer(data: bytes) -> Any:
    """The value of an answer's JSON. Raises `Unavailable` as `_decode_request` does `Invalid`."""
    try:
        return decode_json(data)
    except msgspec.DecodeError as error:
        hint = "Ask again; its upstream wrote a number that is beyond all bounds."
        raise Unavailable("the answer cannot be looked at", code="upstream_failed", hint=hint) from error


def needs_review(exchange: Exchange) -> bool:
    """Whether a person reviews the answer of this call: drawn by the call's id, so that it stays the same."""
    rule = exchange.workload.review if exchange.workload is not None else None
    if rule is None:
        return False
    return int.from_bytes(exchange.id_bytes[-4:], "big") % 10_000 < rule.share


def _streamed_calls(data: bytes) -> list[str]:
    """As `answer_text.call_texts`, of a stream."""
    answers = content_text.decode_answer(data)
    return [text for place, text in answers.items() if "call" in place.split(".")] if isinstance(answers, dict) else []


def cites_passage(text: str, passages: int) -> bool:
    """Whether an answer cites one of so many passages by its number: `[1]`."""
    return any(f"[{number}]" in text for number in range(1, passages + 1))


def disable_guard(gateway: Gateway, exchange: Exchange) -> None:
    """Mark a call of the gateway's own: nothing of it is checked or held."""
    exchange.guard = CallGuardrails(gateway, exchange, NO_GUARDRAILS)
    exchange.guard.skips_review = True
