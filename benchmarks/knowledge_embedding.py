"""How many texts a second are embedded: the plain numpy encoder at its best, and OpenVINO, each on two threads.

Texts are passages of about 200 tokens of the documentation that comes with Python. All run in one process, in turns,
and the best of the rounds counts, so that other load on the machine hits them alike. numpy is tried on one and two
threads and with small and large batches (beside other load its two threads wait for each other, and one is faster).
`ratio` is to plain numpy; `cosine` the smallest against its float32 vectors; `cpu_ratio` compares texts for a second of
computing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from groundplan.core.settings import load_settings
from groundplan.knowledge.embedding import encoder as plain
from groundplan.knowledge.embedding.encoder import Encoder
from groundplan.knowledge.embedding.openvino_encoder import OpenVinoEncoder
from groundplan.runtime.models import MINILM, ensure

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.knowledge_scale import commit
from benchmarks.knowledge_texts import passages

TARGETS = {"float32": 2.2, "bfloat16": 4.0, "cosine": 0.9999}
TOKENS = 200


def texts(encoder: Encoder, count: int) -> list[str]:
    """Passages joined to about 200 tokens."""
    found: list[str] = []
    collected: list[str] = []
    for one in passages():
        collected.append(one)
        joined = " ".join(collected)
        if encoder.embed_counted([joined]).tokens[0] >= TOKENS if len(joined) > 3 * TOKENS else False:
            found.append(" ".join(joined.split()[:150]))
            collected = []
        if len(found) == count:
            break
    return found


def timed(encoder: Encoder, given: list[str]) -> tuple[float, float]:
    """(seconds by the clock, seconds of computing)"""
    clock, cpu = time.perf_counter(), time.process_time()
    encoder.embed(given)
    return time.perf_counter() - clock, time.process_time() - cpu


def measure(count: int, rounds: int, ways: int) -> dict[str, Any]:
    """All figures."""
    folder = ensure(load_settings().models, MINILM.name)
    made: dict[str, Encoder] = {
        "numpy": Encoder(folder),
        "float32": OpenVinoEncoder(folder, "float32", threads=2),
        "bfloat16": OpenVinoEncoder(folder, "bfloat16", threads=2),
    }
    given = texts(made["float32"], count)
    tokens = float(np.mean(made["float32"].embed_counted(given).tokens))
    best: dict[str, tuple[float, float]] = {}
    batches: dict[str, tuple[int, int]] = {}
    for _ in range(rounds):
        for name, encoder in made.items():
            for threads, batch in ((1, 4), (1, 16), (2, 4), (2, 16))[:ways] if name == "numpy" else ((1, 16),):
                with threadpool_limits(limits=threads, user_api="blas"):
                    plain._BATCH_TEXTS = batch
                    clock, cpu = timed(encoder, given)
                if name not in best or clock < best[name][0]:
                    best[name], batches[name] = (clock, cpu), (threads, batch)
    with threadpool_limits(limits=1, user_api="blas"):
        query = sorted(timed(made["float32"], ["How many days of paid leave do I get?"])[0] for _ in range(50))
        reduced = sorted(timed(made["bfloat16"], ["How many days of paid leave do I get?"])[0] for _ in range(50))
        wanted = made["numpy"].embed(given)
    clock0, cpu0 = best["numpy"]
    told: dict[str, Any] = {"texts": len(given), "tokens": round(tokens, 1), "numpy_threads_batch": batches["numpy"]}
    for name, (clock, cpu) in best.items():
        cosine = float((made[name].embed(given) * wanted).sum(axis=1).min())
        told[name] = {
            "texts_a_second": round(len(given) / clock, 1),
            "ratio": round(clock0 / clock, 2),
            "cpu_ratio": round(cpu0 / cpu, 2),
            "cosine": round(cosine, 7),
        }
    told["float32"]["query_p50_ms"] = round(query[25] * 1000, 2)
    told["bfloat16"]["query_p50_ms"] = round(reduced[25] * 1000, 2)
    return told | {
        "target": TARGETS,
        "load_average": os.getloadavg()[0],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "commit": commit(),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=64, help="how many")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    parser.add_argument("--ways", type=int, default=4, help="2: numpy on one thread only")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    print(json.dumps(measure(options.texts, options.rounds, options.ways), indent=None if options.json else 2))


if __name__ == "__main__":
    main()
