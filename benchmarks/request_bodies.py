"""CPU of reading a chat request and of making what the upstream gets, by size: `python benchmarks/request_bodies.py`.

No sockets, no database: the two pure functions only, the best of several rounds, in microseconds a request.
"""

from __future__ import annotations

import argparse
import json
import timeit

from groundplan.blueprint.model import Deployment, Rates
from groundplan.gateway.surfaces.chat.surface import CHAT, read

ROUNDS = 7
TEXT = "The quick brown fox jumps over the lazy dog. "


def body(messages: int, size: int) -> bytes:
    """A request with so many messages and about `size` bytes."""
    each = TEXT * max(1, size // messages // len(TEXT))
    talk = [{"role": "assistant" if i % 2 else "user", "content": each} for i in range(messages)]
    return json.dumps({"model": "auto", "messages": talk, "max_tokens": 50}, separators=(",", ":")).encode()


def measure(data: bytes, system: list[str]) -> dict[str, float]:
    deployment = Deployment(
        name="a", site="s", model="m/a", upstream_model="up", url="http://127.0.0.1/v1", rates=Rates(input=1, output=1)
    )
    ask = read(data)
    codec = CHAT.codec(deployment)
    number = max(20, 2_000_000 // (len(data) + 1000))
    reading = min(timeit.repeat(lambda: read(data), number=number, repeat=ROUNDS)) / number
    making = (
        min(timeit.repeat(lambda: codec.request_body(ask, deployment, 50, system), number=number, repeat=ROUNDS))
        / number
    )
    return {"bytes": len(data), "read_us": round(reading * 1e6, 2), "forward_us": round(making * 1e6, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    found = {}
    for messages, size in ((2, 200), (1, 200_000), (100, 200_000)):
        for name, system in (("", []), (" with a system prompt", ["Be brief."])):
            found[f"{messages} messages, {size} bytes{name}"] = measure(body(messages, size), system)
    if as_json:
        print(json.dumps(found))
        return
    for name, one in found.items():
        print(f"{name:50s} read {one['read_us']:8.2f} us   forward {one['forward_us']:7.2f} us")


if __name__ == "__main__":
    main()
