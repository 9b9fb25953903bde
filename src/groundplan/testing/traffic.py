"""Demo traffic: the example company's people ask their questions through the real gateway, slowly, for ever.

Run by `up --demo` as `python -m groundplan.testing.traffic --home HOME`. It creates its keys with the operator's token,
like any user, and calls the OpenAI API. It invents no figures: what the console shows comes from these real calls. Not
a load generator.

Where the workspace has a sheet for a workload (`judging`), the workload's people ask the sheet's questions, each once
at first, and every new answer of a model is judged by it and reported (`judgements`). With `--people` the company's
people approve and review meanwhile (`people`).

With `--replay FILE.csv --workload NAME` it replays recorded traffic once instead (`replay`), and prints the result as
one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import random
import threading
import time
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from groundplan.core.home import Home
from groundplan.testing import people
from groundplan.testing.control import exchange, port_of_url
from groundplan.testing.judgements import Caller, ChatAnswer, Judgements, parse_answer
from groundplan.testing.judging import Sheet, load_sheets
from groundplan.testing.replay import read_record, replay

QUESTIONS: dict[str, tuple[str, ...]] = {
    "staff-assistant": (
        "How many days of annual leave do I have?",
        "Who approves a trip abroad?",
        "How do I report a lost laptop?",
        "May I work from another country for a month?",
        "What does the parental leave policy say?",
    ),
    "handbook-answers": ("How many days of parental leave do we get?",),
}
QUIET = frozenset({"budget-check"})
"""Left alone: its small budget is for the visitor who races it."""
PEOPLE_EACH = 4
WEIGHTS = {"staff-assistant": 10.0, "support-assistant": 6.0, "finance-analytics": 2.0, "handbook-answers": 0.15}
PAUSE_SECONDS = 0.6
FIRST_SECONDS = 0.05
MOST_TOKENS = 90
RETRY_SECONDS = 2.0
PATIENCE_SECONDS = 20.0
RESCAN_SECONDS = 5.0
HELD_SECONDS = 180.0
"""How long a workload is not asked again after nobody released its answer within the patience of who asked."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Demo traffic through the gateway of HOME.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--people", action="store_true", help="the company's people approve and review, too")
    parser.add_argument("--replay", type=Path, metavar="FILE.csv", help="recorded traffic; also .jsonl, and .gz")
    parser.add_argument("--workload", help="that is called by the replay")
    parser.add_argument("--speed", type=float, default=1.0, help="so many times as fast as recorded")
    parser.add_argument("--most", type=int, help="calls of the record to replay")
    options = parser.parse_args(arguments)
    if options.replay is not None:
        if not options.workload or options.speed <= 0:
            parser.error("--replay needs --workload, and a --speed above 0")
        print(json.dumps(replay_once(Home(options.home), options)))
        return
    chance = random.Random(options.seed)
    home = Home(options.home)
    if options.people:
        threading.Thread(target=people.run, args=(home,), daemon=True).start()
    while True:
        try:
            ask_forever(home, chance)
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            time.sleep(RETRY_SECONDS)  # `up` is starting, restarting or stopping


def replay_once(home: Home, options: argparse.Namespace) -> dict[str, Any]:
    """Replay a record through the gateway of HOME with a key of its own."""
    record = read_record(options.replay, options.most)
    up = json.loads((home.run / "up.json").read_text())
    token = home.operator_token.read_text().strip()
    made = exchange(port_of_url(up["control"]), "POST", "/api/keys", token, {"workload": options.workload})
    time.sleep(1.0)  # a worker takes new keys up within this
    return asyncio.run(replay(port_of_url(up["gateway"]), made["key"], record, options.speed)).told()


def ask_forever(home: Home, chance: random.Random) -> None:
    """Ask one question after the other until something breaks; workloads that are served later join in."""
    up = json.loads((home.run / "up.json").read_text())
    gateway, control = port_of_url(up["gateway"]), port_of_url(up["control"])
    token = home.operator_token.read_text().strip()
    known = load_sheets(home)
    told = Judgements(gateway, known)
    callers: list[Caller] = []
    first: list[tuple[Caller, str]] = []
    held_until: dict[str, float] = {}
    look_again = 0.0
    while True:
        if time.monotonic() >= look_again:
            more = make_keys(control, token, known, {caller.workload for caller in callers})
            first += opening_questions(more, known)
            callers += more
            look_again = time.monotonic() + RESCAN_SECONDS
        held = {workload for workload, end in held_until.items() if end > time.monotonic()}
        asked = next_question(first, callers, held, known, chance)
        if asked is not None:
            answer = ask(gateway, *asked, stream=chance.random() < 0.3)
            told.take(*asked, answer)
            if not answer.status:
                held_until[asked[0].workload] = time.monotonic() + HELD_SECONDS
        told.send()
        time.sleep(FIRST_SECONDS if first else PAUSE_SECONDS * chance.uniform(0.3, 1.7))


def next_question(
    first: list[tuple[Caller, str]],
    callers: Sequence[Caller],
    held: Container[str],
    known: Mapping[str, Sheet],
    chance: random.Random,
) -> tuple[Caller, str] | None:
    """Who asks next, and what; None: nobody. What is to be asked `first` is taken from there. Workloads in `held` are
    not asked: their answers wait for a reviewer, and so would whoever asks after them."""
    for place, (caller, _) in enumerate(first):
        if caller.workload not in held:
            return first.pop(place)
    free = [caller for caller in callers if caller.workload not in held]
    if not free:
        return None
    caller = chance.choices(free, [WEIGHTS.get(caller.workload, 1.0) for caller in free])[0]
    return caller, chance.choice(questions(caller.workload, known))


def questions(workload: str, known: Mapping[str, Sheet]) -> Sequence[str]:
    if workload in known:
        return [each.ask for each in known[workload].questions]
    return QUESTIONS.get(workload, ("What can you help me with?",))


def opening_questions(callers: Sequence[Caller], known: Mapping[str, Sheet]) -> list[tuple[Caller, str]]:
    """Every question of the sheets of these callers' workloads once, by the callers of the workload in turn."""
    found = []
    for workload in dict.fromkeys(caller.workload for caller in callers if caller.workload in known):
        mine = [caller for caller in callers if caller.workload == workload]
        found += [(mine[n % len(mine)], each) for n, each in enumerate(questions(workload, known))]
    return found


def make_keys(control: int, token: str, known: Mapping[str, Sheet], have: Container[str] = ()) -> list[Caller]:
    """Create keys of a few people for each served workload that is not in `have`. For a workload with a sheet: keys of
    its people, and only once the sources are indexed, since answers before that would have no passages."""
    status = exchange(control, "GET", "/api/status", token)
    served = [row["name"] for row in exchange(control, "GET", "/api/workloads", token)["workloads"] if row["served"]]
    wanted = [name for name in served if name not in QUIET and name not in have]
    wanted = [name for name in wanted if name not in known or status["indexed"]]
    if not wanted:
        return []
    everybody = [person["email"] for person in exchange(control, "GET", "/api/people", token)["people"]]
    callers = []
    for workload in wanted:
        mine = known[workload].askers if workload in known else everybody[served.index(workload) :: len(served)]
        for person in list(mine)[:PEOPLE_EACH] or [None]:
            body = {"workload": workload, **({} if person is None else {"user": person})}
            callers.append(Caller(workload, exchange(control, "POST", "/api/keys", token, body)["key"]))
    return callers


def ask(gateway: int, caller: Caller, question: str, *, stream: bool) -> ChatAnswer:
    """Ask one question. Status 0 where the caller gave up, since an answer may wait for a reviewer. Refusals are normal
    and do not stop the traffic."""
    body = {
        "model": "auto",
        "stream": stream,
        "max_tokens": MOST_TOKENS,
        "messages": [{"role": "user", "content": question}],
    }
    connection = http.client.HTTPConnection("127.0.0.1", gateway, timeout=PATIENCE_SECONDS)
    try:
        connection.request(
            "POST",
            "/v1/chat/completions",
            json.dumps(body),
            {"authorization": f"Bearer {caller.key}", "content-type": "application/json"},
        )
        reply = connection.getresponse()
        return parse_answer(reply.status, reply.read())
    except TimeoutError:
        return ChatAnswer(0)
    finally:
        connection.close()


if __name__ == "__main__":
    main()
