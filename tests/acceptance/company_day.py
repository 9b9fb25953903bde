"""A day of a company's traffic, generated from a seed and replayed at the speed of seconds: teams, workloads, features,
whole answers and streams, questions that are asked again, an upstream that fails, batches, reviews and outcomes.

Who calls is here, and what they saw; what the books must say of it is in `test_cost_books_agree`.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

from openai import OpenAI

from tests.acceptance.stack import Answer, Stack, Upstream, request, wait_until

DAY = 86_400.0
SECONDS = 9.0
"""What the day takes."""
SENDERS = 8
TOKENS = 12
MINUTES = Decimal(3)
"""That a person says to have looked at an answer."""
WAGE = Decimal(60)
"""USD of an hour of it."""
PRICES: dict[str, tuple[Decimal, Decimal]] = {
    "large": (Decimal("0.5"), Decimal(4)),
    "small": (Decimal("0.1"), Decimal("0.4")),
    "shaky": (Decimal("0.3"), Decimal("1.2")),
    "spare": (Decimal("0.7"), Decimal("2.8")),
    "vectors": (Decimal("0.02"), Decimal(0)),
    "nightly": (Decimal("0.05"), Decimal("0.2")),
}
"""Upstream's model -> USD of a million tokens in and out; `nightly` in a batch."""
COMPANY = """kind: company
name: day
format: 1
separation: solo
caps: {people: unlimited, calls_per_day: unlimited}
owners: {business: you@day.example, product: you@day.example, architecture: you@day.example,
  engineering: you@day.example, operations: you@day.example, security: you@day.example,
  finance: you@day.example, data: you@day.example, compliance: you@day.example}
---
kind: person
name: you
email: you@day.example
---
kind: site
name: here
type: private
jurisdiction: EU
---
kind: budget
name: company
covers: company
limit: 1000 USD/month
---
kind: allocation
name: platform
term: platform
cost: 1 USD/day
by: cost
source: the contract
---
kind: allocation
name: reviewers
term: review
rate: 60 USD
per: review hour
source: wages
"""
TEAM = """---
kind: team
name: {name}
members: [you]
---
kind: budget
name: {name}
covers: team/{name}
limit: 1000 USD/month
"""
DEPLOYMENT = """---
kind: deployment
name: {name}
site: here
model: day/{name}
upstream_model: {name}
url: {url}
context: 8k
timeouts: {{connect: 1s, first_token: 5s, idle: 5s}}
{more}
"""
WORKLOAD = """---
kind: workload
name: {name}
purpose: A part of the day
audience: employees
stage: pilot
team: {team}
owners: {{business: you@day.example}}
limits: {{max_output: 64, deadline: 30s, attempts: 4}}
{more}
"""
BATCH_PRICE = """serves: [batches]
price: {input: 0.1 USD/Mtok, output: 0.4 USD/Mtok, batch: {input: 0.05 USD/Mtok, output: 0.2 USD/Mtok}}"""
OFFICE = (0, 0, 0, 0, 0, 1, 3, 6, 9, 10, 10, 8, 6, 9, 10, 9, 7, 4, 2, 1, 1, 0, 0, 0)
SHOP = (2, 1, 1, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 7, 6, 6, 7, 8, 9, 10, 9, 7, 5, 3)
"""Relative number of calls in each hour of the day."""


@dataclass(frozen=True, slots=True)
class WorkloadTraffic:
    """The traffic of one workload: how many calls it gets, when, and for which features."""

    team: str
    calls: int
    curve: tuple[int, ...]
    features: tuple[str, ...]
    settings: str
    path: str = "/v1/chat/completions"
    questions: int = 1000
    """Number of different questions; if there are few, the same are asked again."""
    streams: float = 0.4


TRAFFIC = {
    "support": WorkloadTraffic(
        "care", 150, SHOP, ("chat", "mail"),
        "deployments: [small, large]\nrouting: {by: rules, rules: [{name: hard, use: large, words: [refund]}]}",
    ),
    "sales": WorkloadTraffic(
        "sales", 110, OFFICE, ("offer", "summary"), "deployments: [small]\ncache: {answers: exact, ttl: 1h}",
        questions=25,
    ),
    "fragile": WorkloadTraffic(
        "care", 80, SHOP, ("status",),
        "deployments: [shaky]\nfallbacks: [spare]\nreliability: {retries: {same: 1, backoff: 10ms}}",
    ),
    "search": WorkloadTraffic(
        "desk", 50, OFFICE, ("index",), "deployments: [small]\nembeddings: [vectors]",
        path="/v1/embeddings", streams=0.0,
    ),
    "careful": WorkloadTraffic(
        "desk", 6, OFFICE, ("letter",),
        "deployments: [large]\nreview: {share: 100%, before_sending: true, by: you@day.example}",
        streams=0.0,
    ),
}  # fmt: skip
BATCHES = {"archive": ("nightly", 30), "digest": ("small", 15)}
"""Workload -> (deployment, lines) of its batch: one at the provider's batch endpoint, one as single calls."""


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A call at a second of the day."""

    at: float
    workload: str
    feature: str
    text: str
    stream: bool


def planned_calls(seed: int) -> list[PlannedCall]:
    """The calls of a day, in order; the same for the same seed."""
    chance = random.Random(seed)
    calls = []
    for name, traffic in TRAFFIC.items():
        for hour in chance.choices(range(24), traffic.curve, k=traffic.calls):
            number = chance.randrange(traffic.questions)
            what = "refund" if name == "support" and number % 3 == 0 else "question"
            text = f"{what} {number} of {name}" + " please" * (number % 40)
            calls.append(
                PlannedCall(
                    (hour + chance.random()) * 3600, name, chance.choice(traffic.features), text,
                    chance.random() < traffic.streams,
                )
            )  # fmt: skip
    return sorted(calls, key=lambda each: each.at)


def declare(folder: Path, main: Upstream, flaky: Upstream) -> Path:
    folder.mkdir(parents=True)
    (folder / "company.yaml").write_text(COMPANY)
    texts = [TEAM.format(name=name) for name in sorted({traffic.team for traffic in TRAFFIC.values()} | {"night"})]
    for name, (input_price, output_price) in PRICES.items():
        more = f"price: {{input: {input_price} USD/Mtok, output: {output_price} USD/Mtok}}"
        more = BATCH_PRICE if name == "nightly" else f"type: embeddings\n{more}" if name == "vectors" else more
        texts.append(DEPLOYMENT.format(name=name, url=(flaky if name == "shaky" else main).url, more=more))
    texts += [WORKLOAD.format(name=name, team=traffic.team, more=traffic.settings) for name, traffic in TRAFFIC.items()]
    texts += [
        WORKLOAD.format(name=name, team="night", more=f"deployments: [{place}]") for name, (place, _) in BATCHES.items()
    ]
    (folder / "rest.yaml").write_text("".join(texts).removeprefix("---\n"))
    return folder


@dataclass
class CallerResults:
    """What the callers got during the day."""

    answered: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(workload, feature) -> answered calls."""
    calls: set[str] = field(default_factory=set)
    """The ids of the calls that were answered to their end."""
    costs: dict[str, Decimal] = field(default_factory=dict)
    """Call id -> its cost according to its answer; not of streams."""
    cached: int = 0
    """Number of answers from the exact cache; not of streams."""
    outcomes: list[tuple[str, bool]] = field(default_factory=list)
    """(workload, accepted)"""
    retried: int = 0
    """Retries, since a connection broke or the gateway said that it was not ready."""
    problems: list[str] = field(default_factory=list)


class CompanyDay:
    """The traffic of one day through an installation."""

    def __init__(self, stack: Stack, main: Upstream, flaky: Upstream) -> None:
        self.stack, self.main, self.flaky = stack, main, flaky
        self.keys = {name: self._create_key(name) for name in (*TRAFFIC, *BATCHES)}
        self.results = CallerResults()
        self._lock = threading.Lock()
        self._finished = threading.Event()

    def _create_key(self, workload: str) -> str:
        created = self.stack.control("POST", "/api/keys", {"workload": workload}).body
        self.stack.wait_until_effective(created["effective"])
        return str(created["key"])

    def run(self, seed: int, at_noon: Any) -> int:
        """Run the day and call `at_noon` in its middle. Returns the number of planned calls, with lines of batches."""
        planned = planned_calls(seed)
        due_calls = iter(planned)
        begin = time.monotonic()
        senders = [
            threading.Thread(target=self._send, args=(due_calls, begin, seed + n), daemon=True) for n in range(SENDERS)
        ]
        background = [
            threading.Thread(target=each, daemon=True)
            for each in (
                self._release_reviews,
                self._inject_failures,
                *(lambda name=name: self._run_batch(name) for name in BATCHES),
            )
        ]
        for thread in (*senders, *background):
            thread.start()
        time.sleep(max(0.0, begin + SECONDS / 2 - time.monotonic()))
        for thread in background[2:]:  # the batches end before noon: a line whose worker is killed ends as interrupted
            thread.join(100)
            assert not thread.is_alive(), "a batch does not end"
        at_noon()
        for thread in senders:
            thread.join(120)
            assert not thread.is_alive(), "a caller waits for ever"
        self._finished.set()
        for thread in background[:2]:
            thread.join(10)
        assert not self.results.problems, self.results.problems
        return len(planned) + sum(lines for _, lines in BATCHES.values())

    def _send(self, due_calls: Iterator[PlannedCall], begin: float, seed: int) -> None:
        chance = random.Random(seed)
        while True:
            with self._lock:
                planned_call = next(due_calls, None)
            if planned_call is None:
                return
            time.sleep(max(0.0, begin + planned_call.at * SECONDS / DAY - time.monotonic()))
            try:
                self._make_call(planned_call, chance)
            except (AssertionError, KeyError, ValueError) as error:
                self.results.problems.append(f"{planned_call}: {error!r}")

    def _make_call(self, planned_call: PlannedCall, chance: random.Random) -> None:
        """Make a call until it is answered, and record what the caller got."""
        answer = self._call_until_answered(planned_call)
        call = answer.headers["groundplan-call-id"]
        facts = answer.body.get("groundplan", {}) if isinstance(answer.body, dict) else {}
        with self._lock:
            self.results.answered[planned_call.workload, planned_call.feature] += 1
            self.results.calls.add(call)
            if "cost_usd" in facts:
                self.results.costs[call] = Decimal(facts["cost_usd"])
                self.results.cached += facts.get("cache") == "exact"
        if planned_call.workload in ("support", "careful") and chance.random() < 0.3:
            self._report_outcome(planned_call.workload, call, chance.random() < 0.8)

    def _call_until_answered(self, planned_call: PlannedCall) -> Answer:
        messages = [{"role": "user", "content": planned_call.text}]
        body: dict[str, Any] = {"model": "auto", "messages": messages, "max_tokens": 40, "stream": planned_call.stream}
        if TRAFFIC[planned_call.workload].path.endswith("embeddings"):
            body = {"model": "auto", "input": [planned_call.text, planned_call.text[::-1]]}
        headers = {
            "authorization": f"Bearer {self.keys[planned_call.workload]}",
            "groundplan-feature": planned_call.feature,
        }
        for _ in range(100):
            with contextlib.suppress(OSError, http.client.HTTPException):
                answer = request(self.stack.port, "POST", TRAFFIC[planned_call.workload].path, body, headers, 60)
                is_complete = not planned_call.stream or (
                    isinstance(answer.body, bytes) and answer.body.rstrip().endswith(b"[DONE]")
                )
                if answer.status == 200 and is_complete:
                    return answer
                assert answer.status in (200, 429, 503), (answer.status, answer.body)
            with self._lock:
                self.results.retried += 1
            time.sleep(0.2)
        raise AssertionError("the call is never answered")

    def _report_outcome(self, workload: str, call: str, accepted: bool) -> None:
        """Report the outcome of a call once it is in the ledger; twice under one id, as after a lost answer."""
        body = {"call_id": call, "id": str(uuid4()), "accepted": accepted, "value_usd": "0.5" if accepted else None}
        headers = {"authorization": f"Bearer {self.keys[workload]}"}

        def send_outcome() -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException):
                return request(self.stack.port, "POST", "/api/outcomes", body, headers).status == 201
            return False

        wait_until(send_outcome, 60, "the outcome is accepted")
        send_outcome()
        with self._lock:
            self.results.outcomes.append((workload, accepted))

    def _release_reviews(self) -> None:
        """The reviewer: release held answers until the day is over."""
        while not self._finished.wait(0.1):
            with contextlib.suppress(OSError, http.client.HTTPException, KeyError):
                for held in self.stack.control("GET", "/api/reviews").body["reviews"]:
                    ruling = {"reason": "fine", "minutes": float(MINUTES)}
                    self.stack.control("POST", f"/api/reviews/{held['id']}/release", ruling)

    def _inject_failures(self) -> None:
        """Make the flaky upstream fail for a while, twelve times a day."""
        for number in itertools.count():
            failing = {"mode": "error", "status": (500, 503, 429)[number % 3], "after": 2, "times": 2 + number % 2}
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.flaky.control(tokens=TOKENS, latency_ms=2, **failing)
            if self._finished.wait(SECONDS / 12):
                return

    def _run_batch(self, workload: str) -> None:
        """Create a batch at the beginning of the day and wait for it."""
        try:
            url = f"http://127.0.0.1:{self.stack.port}/v1"
            with OpenAI(base_url=url, api_key=self.keys[workload], max_retries=8, timeout=30) as client:
                data = b"".join(self._line(workload, number) for number in range(BATCHES[workload][1]))
                file = client.files.create(file=("calls.jsonl", data), purpose="batch")
                batch = client.batches.create(
                    input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
                )
                wait_until(lambda: client.batches.retrieve(batch.id).status == "completed", 90, f"{workload} is over")
                text = client.files.content(str(client.batches.retrieve(batch.id).output_file_id)).text
                for line in map(json.loads, text.splitlines()):
                    facts = line["response"]["body"]["groundplan"]
                    with self._lock:
                        self.results.calls.add(facts["call_id"])
                        self.results.costs[facts["call_id"]] = Decimal(facts["cost_usd"])
                        self.results.answered[workload, ""] += 1
        except Exception as error:  # noqa: BLE001 -- reported by the main thread
            self.results.problems.append(f"{workload}: {error!r}")

    @staticmethod
    def _line(workload: str, number: int) -> bytes:
        messages = [{"role": "user", "content": f"line {number} of {workload}"}]
        body = {"model": "auto", "max_tokens": 40, "messages": messages}
        line = {"custom_id": f"c{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        return json.dumps(line).encode() + b"\n"


@contextlib.contextmanager
def run_company_day(folder: Path) -> Iterator[CompanyDay]:
    main, flaky = Upstream(folder / "main"), Upstream(folder / "flaky")
    stack = Stack(folder, declare(folder / "workspace", main, flaky), workers=2)
    try:
        for upstream in (main, flaky):
            upstream.start()
            upstream.control(mode="ok", tokens=TOKENS, latency_ms=2)
        stack.start()
        yield CompanyDay(stack, main, flaky)
    finally:
        stack.stop()
        main.stop()
        flaky.stop()
