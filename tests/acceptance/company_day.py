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
"""How much is asked in each hour of the day."""


@dataclass(frozen=True, slots=True)
class Part:
    """One workload of the day: how often it is asked, when, and what for."""

    team: str
    calls: int
    curve: tuple[int, ...]
    features: tuple[str, ...]
    declared: str
    path: str = "/v1/chat/completions"
    questions: int = 1000
    """Different ones: few are asked again."""
    streams: float = 0.4


PARTS = {
    "support": Part(
        "care", 150, SHOP, ("chat", "mail"),
        "deployments: [small, large]\nrouting: {by: rules, rules: [{name: hard, use: large, words: [refund]}]}",
    ),
    "sales": Part("sales", 110, OFFICE, ("offer", "summary"), "deployments: [small]\ncache: {answers: exact, ttl: 1h}",
                  questions=25),
    "fragile": Part(
        "care", 80, SHOP, ("status",),
        "deployments: [shaky]\nfallbacks: [spare]\nreliability: {retries: {same: 1, backoff: 10ms}}",
    ),
    "search": Part("desk", 50, OFFICE, ("index",), "deployments: [small]\nembeddings: [vectors]",
                   path="/v1/embeddings", streams=0.0),
    "careful": Part("desk", 6, OFFICE, ("letter",),
                    "deployments: [large]\nreview: {share: 100%, before_sending: true, by: you@day.example}",
                    streams=0.0),
}  # fmt: skip
BATCHES = {"archive": ("nightly", 30), "digest": ("small", 15)}
"""Workload -> the deployment that makes its batch, and how many lines: at the provider's endpoint, and as calls."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that somebody asks at a second of the day."""

    at: float
    workload: str
    feature: str
    text: str
    stream: bool


def events(seed: int) -> list[Event]:
    """The calls of a day, in order: the same for a seed."""
    chance = random.Random(seed)
    found = []
    for name, part in PARTS.items():
        for hour in chance.choices(range(24), part.curve, k=part.calls):
            number = chance.randrange(part.questions)
            what = "refund" if name == "support" and number % 3 == 0 else "question"
            text = f"{what} {number} of {name}" + " please" * (number % 40)
            found.append(
                Event(
                    (hour + chance.random()) * 3600, name, chance.choice(part.features), text,
                    chance.random() < part.streams,
                )
            )  # fmt: skip
    return sorted(found, key=lambda each: each.at)


def declare(folder: Path, main: Upstream, flaky: Upstream) -> Path:
    folder.mkdir(parents=True)
    (folder / "company.yaml").write_text(COMPANY)
    texts = [TEAM.format(name=name) for name in sorted({part.team for part in PARTS.values()} | {"night"})]
    for name, (into, out) in PRICES.items():
        more = f"price: {{input: {into} USD/Mtok, output: {out} USD/Mtok}}"
        more = BATCH_PRICE if name == "nightly" else f"type: embeddings\n{more}" if name == "vectors" else more
        texts.append(DEPLOYMENT.format(name=name, url=(flaky if name == "shaky" else main).url, more=more))
    texts += [WORKLOAD.format(name=name, team=part.team, more=part.declared) for name, part in PARTS.items()]
    texts += [
        WORKLOAD.format(name=name, team="night", more=f"deployments: [{place}]") for name, (place, _) in BATCHES.items()
    ]
    (folder / "rest.yaml").write_text("".join(texts).removeprefix("---\n"))
    return folder


@dataclass
class Seen:
    """What the callers saw of a day."""

    answered: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(workload, feature) -> calls."""
    calls: set[str] = field(default_factory=set)
    """The ids of all that were answered to their end."""
    costs: dict[str, Decimal] = field(default_factory=dict)
    """Call -> what its answer said that it cost, of whole answers."""
    cached: int = 0
    """Of whole answers."""
    outcomes: list[tuple[str, bool]] = field(default_factory=list)
    """(workload, accepted)"""
    again: int = 0
    """Calls that were asked once more, since a connection broke or the gateway said that it was not ready."""
    wrong: list[str] = field(default_factory=list)


class CompanyDay:
    """Everything that happens between two midnights."""

    def __init__(self, stack: Stack, main: Upstream, flaky: Upstream) -> None:
        self.stack, self.main, self.flaky = stack, main, flaky
        self.keys = {name: self._key(name) for name in (*PARTS, *BATCHES)}
        self.seen = Seen()
        self._lock = threading.Lock()
        self._over = threading.Event()

    def _key(self, workload: str) -> str:
        made = self.stack.control("POST", "/api/keys", {"workload": workload}).body
        self.stack.confirm(made["effective"])
        return str(made["key"])

    def live(self, seed: int, middle: Any) -> int:
        """The whole day; `middle` is called at noon. How many calls were planned, lines of batches too."""
        planned = events(seed)
        due = iter(planned)
        begin = time.monotonic()
        senders = [
            threading.Thread(target=self._send, args=(due, begin, seed + n), daemon=True) for n in range(SENDERS)
        ]
        beside = [
            threading.Thread(target=each, daemon=True)
            for each in (self._release, self._fail, *(lambda name=name: self._batch(name) for name in BATCHES))
        ]
        for thread in (*senders, *beside):
            thread.start()
        time.sleep(max(0.0, begin + SECONDS / 2 - time.monotonic()))
        for thread in beside[2:]:  # by noon they are over: lines that die with a worker are told as such
            thread.join(100)
            assert not thread.is_alive(), "a batch does not end"
        middle()
        for thread in senders:
            thread.join(120)
            assert not thread.is_alive(), "somebody waits for ever"
        self._over.set()
        for thread in beside[:2]:
            thread.join(10)
        assert not self.seen.wrong, self.seen.wrong
        return len(planned) + sum(lines for _, lines in BATCHES.values())

    def _send(self, due: Iterator[Event], begin: float, seed: int) -> None:
        chance = random.Random(seed)
        while True:
            with self._lock:
                event = next(due, None)
            if event is None:
                return
            time.sleep(max(0.0, begin + event.at * SECONDS / DAY - time.monotonic()))
            try:
                self._ask(event, chance)
            except (AssertionError, KeyError, ValueError) as error:
                self.seen.wrong.append(f"{event}: {error!r}")

    def _ask(self, event: Event, chance: random.Random) -> None:
        """Until it is answered: who breaks off is asked again, as a client would."""
        answer = self._answered(event)
        call = answer.headers["groundplan-call-id"]
        facts = answer.body.get("groundplan", {}) if isinstance(answer.body, dict) else {}
        with self._lock:
            self.seen.answered[event.workload, event.feature] += 1
            self.seen.calls.add(call)
            if "cost_usd" in facts:
                self.seen.costs[call] = Decimal(facts["cost_usd"])
                self.seen.cached += facts.get("cache") == "exact"
        if event.workload in ("support", "careful") and chance.random() < 0.3:
            self._judge(event.workload, call, chance.random() < 0.8)

    def _answered(self, event: Event) -> Answer:
        messages = [{"role": "user", "content": event.text}]
        body: dict[str, Any] = {"model": "auto", "messages": messages, "max_tokens": 40, "stream": event.stream}
        if PARTS[event.workload].path.endswith("embeddings"):
            body = {"model": "auto", "input": [event.text, event.text[::-1]]}
        headers = {"authorization": f"Bearer {self.keys[event.workload]}", "groundplan-feature": event.feature}
        for _ in range(100):
            with contextlib.suppress(OSError, http.client.HTTPException):
                answer = request(self.stack.port, "POST", PARTS[event.workload].path, body, headers, 60)
                whole = not event.stream or (
                    isinstance(answer.body, bytes) and answer.body.rstrip().endswith(b"[DONE]")
                )
                if answer.status == 200 and whole:
                    return answer
                assert answer.status in (200, 429, 503), (answer.status, answer.body)
            with self._lock:
                self.seen.again += 1
            time.sleep(0.2)
        raise AssertionError("it is never answered")

    def _judge(self, workload: str, call: str, accepted: bool) -> None:
        """The outcome of a call, once it is in the ledger; said twice under one id, as who was not answered would."""
        body = {"call_id": call, "id": str(uuid4()), "accepted": accepted, "value_usd": "0.5" if accepted else None}
        sent = {"authorization": f"Bearer {self.keys[workload]}"}

        def told() -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException):
                return request(self.stack.port, "POST", "/api/outcomes", body, sent).status == 201
            return False

        wait_until(told, 60, "the outcome is taken")
        told()
        with self._lock:
            self.seen.outcomes.append((workload, accepted))

    def _release(self) -> None:
        """Whoever looks at answers that wait."""
        while not self._over.wait(0.1):
            with contextlib.suppress(OSError, http.client.HTTPException, KeyError):
                for held in self.stack.control("GET", "/api/reviews").body["reviews"]:
                    ruling = {"reason": "fine", "minutes": float(MINUTES)}
                    self.stack.control("POST", f"/api/reviews/{held['id']}/release", ruling)

    def _fail(self) -> None:
        """Twelve times a day the flaky upstream fails for a while."""
        for number in itertools.count():
            failing = {"mode": "error", "status": (500, 503, 429)[number % 3], "after": 2, "times": 2 + number % 2}
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.flaky.control(tokens=TOKENS, latency_ms=2, **failing)
            if self._over.wait(SECONDS / 12):
                return

    def _batch(self, workload: str) -> None:
        """Ordered in the night, and waited for."""
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
                        self.seen.calls.add(facts["call_id"])
                        self.seen.costs[facts["call_id"]] = Decimal(facts["cost_usd"])
                        self.seen.answered[workload, ""] += 1
        except Exception as error:  # noqa: BLE001 -- told by whoever waits for the thread
            self.seen.wrong.append(f"{workload}: {error!r}")

    @staticmethod
    def _line(workload: str, number: int) -> bytes:
        messages = [{"role": "user", "content": f"line {number} of {workload}"}]
        body = {"model": "auto", "max_tokens": 40, "messages": messages}
        told = {"custom_id": f"c{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        return json.dumps(told).encode() + b"\n"


@contextlib.contextmanager
def company(folder: Path) -> Iterator[CompanyDay]:
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
