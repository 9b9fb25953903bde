"""Neighbours that keep the same cores busy while the gateway is measured: the ingestion of documents, over and over, or
the embedded model answering without a pause.

Each is a process that runs until it is stopped. PostgreSQL and the shipper belong to the benchmark itself.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from groundplan.core.endpoints import lookup
from groundplan.core.home import Home
from groundplan.core.settings import load_settings
from groundplan.knowledge.chunk import split_passages
from groundplan.knowledge.embedding.encoder import Encoder
from groundplan.runtime.models import MINILM, ensure

DOCUMENTS = Path(__file__).resolve().parents[1] / "examples" / "company" / "handbook"
NEIGHBOURS = ("ingestion", "model")


def ingest_documents() -> None:
    """Read, split and embed the example's documents, as ingestion does, for ever."""
    encoder = Encoder(ensure(load_settings().models, MINILM.name))
    while True:
        for document in sorted(DOCUMENTS.rglob("*.md")):
            pieces = [chunk.text for chunk in split_passages(document.read_text(encoding="utf-8"), markdown=True)]
            if pieces:
                encoder.embed(pieces)


def query_model() -> None:
    """Ask the embedded model one question after the other."""
    home = Home(Path(tempfile.mkdtemp(prefix="gateway-neighbour-")))
    home.create()
    model = subprocess.Popen([sys.executable, "-m", "groundplan.runtime.embedded", "--home", str(home.root)])
    body = {"messages": [{"role": "user", "content": "Tell me about pumps."}], "max_tokens": 200}
    try:
        while model.poll() is None:
            endpoint = lookup(home, "embedded")
            if endpoint is None:
                time.sleep(0.2)
                continue
            url = urlsplit(endpoint.url)
            connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=60)
            headers = {"authorization": f"Bearer {endpoint.token}", "content-type": "application/json"}
            with suppress(OSError, http.client.HTTPException):
                connection.request("POST", f"{url.path}/chat/completions", json.dumps(body), headers)
                connection.getresponse().read()
            connection.close()
    finally:
        model.terminate()
        model.wait(20)
        shutil.rmtree(home.root, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=NEIGHBOURS)
    name = parser.parse_args().name
    # so that the model process ends with this one
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"{datetime.now(UTC):%H:%M:%S} {name} begins", flush=True)
    if name == "ingestion":
        ingest_documents()
    else:
        query_model()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
