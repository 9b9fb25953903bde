"""CPU of reading a chat request and of building the upstream's body, by size: `python benchmarks/request_bodies.py`.

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


def chat_body(messages: int, size: int) -> bytes:
    """A chat request with that many messages and about `size` bytes."""
    content = TEXT * max(1, size // messages // len(TEXT))
    conversation = [{"role": "assistant" if i % 2 else "user", "content": content} for i in range(messages)]
    return json.dumps({"model": "auto", "messages": conversation, "max_tokens": 50}, separators=(",", ":")).encode()


def measure(data: bytes, system: list[str]) -> dict[str, float]:
    """Microseconds to read the request, and to build the upstream's body with these system prompts."""
    deployment = Deployment(
        name="a", site="s", model="m/a", upstream_model="up", url="http://127.0.0.1/v1", rates=Rates(input=1, output=1)
    )
    chat_request = read(data)
    codec = CHAT.codec(deployment)
    number = max(20, 2_000_000 // (len(data) + 1000))
    read_seconds = min(timeit.repeat(lambda: read(data), number=number, repeat=ROUNDS)) / number
    forward_seconds = (
        min(
            timeit.repeat(
                lambda: codec.request_body(chat_request, deployment, 50, system), number=number, repeat=ROUNDS
            )
        )
        / number
    )
    return {"bytes": len(data), "read_us": round(read_seconds * 1e6, 2), "forward_us": round(forward_seconds * 1e6, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    figures = {}
    for messages, size in ((2, 200), (1, 200_000), (100, 200_000)):
        for name, system in (("", []), (" with a system prompt", ["Be brief."])):
            figures[f"{messages} messages, {size} bytes{name}"] = measure(chat_body(messages, size), system)
    if as_json:
        print(json.dumps(figures))
        return
    for name, row in figures.items():
        print(f"{name:50s} read {row['read_us']:8.2f} us   forward {row['forward_us']:7.2f} us")


if __name__ == "__main__":
    main()
