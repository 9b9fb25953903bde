"""What Anthropic's newest client for Python does with a gateway, every answer held strictly against its types.

    PYTHONPATH=.venv/clients python tests/clients/anthropic_newest.py URL KEY MODEL...     prints one line of JSON

It runs by itself, since a library that speaks to providers wants an older one beside it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import anthropic

ASKED: Any = [{"role": "user", "content": "Where is it?"}]
LOOK: Any = {"name": "look", "description": "Look", "input_schema": {"type": "object", "properties": {}}}


def answers(client: Any, model: str) -> dict[str, Any]:
    message = client.messages.create(model=model, max_tokens=20, messages=ASKED)
    with client.messages.stream(model=model, max_tokens=20, messages=ASKED) as stream:
        streamed = stream.get_final_message()
    instructed = [{"role": "system", "content": "Be short."}, *ASKED]
    again = client.messages.create(model=model, max_tokens=20, messages=instructed, thinking={"type": "disabled"})
    used = client.messages.create(model=model, max_tokens=20, messages=ASKED, tools=[LOOK])
    counted = client.messages.count_tokens(model=model, messages=ASKED)
    return {
        "text": message.content[0].text.strip(),
        "streamed": streamed.content[0].text.strip(),
        "instructed": again.content[0].text.strip(),
        "stop": used.stop_reason,
        "tokens": [message.usage.output_tokens, streamed.usage.output_tokens, counted.input_tokens > 0],
    }


def models(client: Any) -> dict[str, Any]:
    listed = [model.id for model in client.models.list(limit=1)]
    return {
        "listed": listed,
        "active": [model.id for model in client.models.list(lifecycle=["active", "deprecated"])] == listed,
        "retired": [model.id for model in client.models.list(lifecycle=["retired"])],
        "one": client.models.retrieve(listed[0]).lifecycle,
    }


def files(client: Any) -> dict[str, Any]:
    made = [client.files.upload(file=(name, b"%PDF-1.4\n", "application/pdf")) for name in ("a.pdf", "b.pdf", "c.pdf")]
    ids = [file.id for file in made]
    told = {
        "paged": [file.id for file in client.files.list(limit=1)] == ids[::-1],
        "named": [file.id for file in client.files.list(ids=[ids[0], ids[2], "file-none", ids[0]])] == [ids[2], ids[0]],
        "size": client.files.retrieve_metadata(ids[1]).size_bytes,
        "content": client.files.download(ids[1]).read().decode(),
        "deleted": [client.files.delete(id).type for id in ids],
    }
    return {**told, "left": [file.id for file in client.files.list(ids=ids)]}


def batches(client: Any, model: str) -> dict[str, Any]:
    params = {"model": model, "max_tokens": 20, "messages": ASKED}
    made = client.messages.batches.create(requests=[{"custom_id": name, "params": params} for name in ("a", "b")])
    end = time.monotonic() + 60
    while client.messages.batches.retrieve(made.id).processing_status != "ended" and time.monotonic() < end:
        time.sleep(0.1)
    results = {each.custom_id: each.result.type for each in client.messages.batches.results(made.id)}
    return {"results": results, "listed": [each.id for each in client.messages.batches.list()] == [made.id]}


def refused(client: Any) -> dict[str, list[str]]:
    calls: dict[str, Callable[[], Any]] = {
        "model": lambda: client.messages.create(model="none", max_tokens=5, messages=ASKED),
        "speed": lambda: client.messages.create(model="auto", max_tokens=5, messages=ASKED, speed="fast"),
        "organization": lambda: list(client.organization.users.list()),
        "key": lambda: client.copy(api_key="gp_none").messages.create(model="auto", max_tokens=5, messages=ASKED),
    }
    told = {}
    for name, call in calls.items():
        try:
            call()
        except anthropic.APIStatusError as error:
            body: Any = error.body
            told[name] = [type(error).__name__, body["error"]["type"], body["error"]["code"]]
    return told


def main() -> None:
    url, key, *names = sys.argv[1:]
    with anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, _strict_response_validation=True) as client:
        told = {
            "version": anthropic.__version__,
            "answers": {name: answers(client, name) for name in names},
            "models": models(client),
            "files": files(client),
            "batches": batches(client, names[0]),
            "refused": refused(client),
        }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
