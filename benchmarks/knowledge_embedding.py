"""How many texts a second are embedded: plain numpy at its best batch and OpenVINO, each on two threads.

Texts are passages of about 200 tokens of the documentation that comes with Python, the same for all. The baseline is
the plain numpy encoder at the size of batches that is fastest here, in the faster of two ways to use two threads:
`products`, those of its matrix products, and `halves`, two of our own, each with half of the texts and one thread in
its products (beside other load the threads of products wait for each other). All sizes are tried on some of the texts
first, the fastest go through all rounds. All run in one process, in turns; `ratio` is the median of the rounds' own
ratios to the baseline, `ratio_of_best` that of the fastest rounds, `ratio_to` the same as `ratio` for each way;
`cpu_ratio` compares texts for a second of computing. `cosine` is the smallest of any text against numpy's vector.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from threadpoolctl import threadpool_limits

from groundplan.core.settings import load_settings
from groundplan.knowledge.embedding import encoder as plain
from groundplan.knowledge.embedding.encoder import Encoder
from groundplan.knowledge.embedding.openvino_encoder import OpenVinoEncoder, Precision
from groundplan.runtime.models import MINILM, ensure

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.knowledge_machine import Watch, run_details
from benchmarks.knowledge_texts import passages
from benchmarks.knowledge_tokens import count_tokens

TARGETS = {"float32": 2.2, "bfloat16": 4.0, "cosine": 0.9999}
TOKENS = 200
THREADS: Final = 2
PRECISIONS: Final[tuple[Precision, ...]] = ("float32", "bfloat16")
BATCHES: Final = (1, 2, 4, 8, 16, 32)
SHIPPED: Final = (plain._BATCH_TEXTS, plain._BATCH_TOKENS)
_TRIED: Final = 16
"""Texts that the sizes of batches are tried on."""
_QUESTION = "How many days of paid leave do I get?"


@dataclass
class Way:
    """One way to embed, with the seconds of its rounds by the clock and of computing."""

    embed: Callable[[list[str]], Any]
    clock: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def time(self, given: list[str]) -> None:
        """One round."""
        clock, cpu = time.perf_counter(), time.process_time()
        self.embed(given)
        self.clock.append(time.perf_counter() - clock)
        self.cpu.append(time.process_time() - cpu)

    @property
    def best(self) -> float:
        return min(self.clock)


def texts(encoder: Encoder, count: int) -> list[str]:
    """Passages joined to about 200 tokens."""
    found: list[str] = []
    collected: list[str] = []
    for one in passages():
        collected.append(one)
        joined = " ".join(collected)
        if len(joined) > 3 * TOKENS and count_tokens(encoder, [joined])[0] >= TOKENS:
            found.append(" ".join(joined.split()[:150]))
            collected = []
        if len(found) == count:
            break
    return found


def numpy_way(encoder: Encoder, batch: int, *, halves: bool = False) -> Way:
    """Plain numpy on two threads: those of its matrix products, or two of our own."""

    def embed(given: list[str]) -> Any:
        plain._BATCH_TEXTS, plain._BATCH_TOKENS = batch, batch * plain.WINDOW_TOKENS
        if not halves:
            with threadpool_limits(limits=THREADS, user_api="blas"):
                return encoder.embed(given)
        with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(THREADS) as threads:
            return np.concatenate(list(threads.map(encoder.embed, (given[0::2], given[1::2]))))

    return Way(embed)


def openvino_way(encoder: Encoder) -> Way:
    """As the product has it."""

    def embed(given: list[str]) -> Any:
        plain._BATCH_TEXTS, plain._BATCH_TOKENS = SHIPPED
        with threadpool_limits(limits=1, user_api="blas"):
            return encoder.embed(given)

    return Way(embed)


def fastest(
    encoder: Encoder, given: list[str], batches: Sequence[int], *, halves: bool
) -> tuple[dict[int, float], list[int]]:
    """(texts a second by size of batches, the two fastest sizes)"""
    tried = {batch: numpy_way(encoder, batch, halves=halves) for batch in batches}
    for way in tried.values():
        way.time(given[:_TRIED])
        way.time(given[:_TRIED])
    speed = {batch: round(min(_TRIED, len(given)) / way.best, 1) for batch, way in tried.items()}
    return speed, sorted(speed, key=lambda batch: -speed[batch])[:2]


def measure(count: int, rounds: int, batches: Sequence[int]) -> dict[str, Any]:
    """All figures."""
    folder = ensure(load_settings().models, MINILM.name)
    base = Encoder(folder)
    made: dict[str, OpenVinoEncoder] = {name: OpenVinoEncoder(folder, name, threads=THREADS) for name in PRECISIONS}
    given = texts(base, count)
    tokens = float(np.mean(count_tokens(base, given)))
    speed, sizes = fastest(base, given, batches, halves=False)
    _, halves = fastest(base, given, batches, halves=True)
    ways = {f"numpy {size}": numpy_way(base, size) for size in sizes}
    ways["halves"] = numpy_way(base, halves[0], halves=True)
    ways |= {name: openvino_way(encoder) for name, encoder in made.items()}
    for way in ways.values():
        way.embed(given[:_TRIED])
    for _ in range(rounds):
        for way in ways.values():
            way.time(given)
    size = min(sizes, key=lambda size: float(np.median(ways[f"numpy {size}"].clock)))
    plainly = {"products": ways[f"numpy {size}"], "halves": ways["halves"]}
    fast = min(plainly, key=lambda name: float(np.median(plainly[name].clock)))
    baseline = plainly[fast]
    wanted = np.asarray(plainly["products"].embed(given))
    told: dict[str, Any] = {
        "texts": len(given),
        "tokens": round(tokens, 1),
        "rounds": rounds,
        "baseline": fast,
        "products": {**speeds(plainly["products"], count), "threads": THREADS, "batch": size, "tried": speed},
        "halves": {**speeds(plainly["halves"], count), "threads": THREADS, "batch": halves[0]},
    }
    for name, encoder in made.items():
        way = ways[name]
        told[name] = {
            **speeds(way, count),
            "ratio": median_ratio(baseline, way),
            "ratio_of_best": round(baseline.best / way.best, 2),
            "ratio_to": {name: median_ratio(one, way) for name, one in plainly.items()},
            "cpu_ratio": round(float(np.median(baseline.cpu) / np.median(way.cpu)), 2),
            "cosine": round(float((encoder.embed(given) * wanted).sum(axis=1).min()), 7),
            "query_p50_ms": question(encoder),
        }
    return told


def speeds(way: Way, count: int) -> dict[str, float]:
    """In the median round, and in the fastest."""
    return {
        "texts_a_second": round(count / float(np.median(way.clock)), 1),
        "best_texts_a_second": round(count / way.best, 1),
    }


def median_ratio(baseline: Way, way: Way) -> float:
    """How many times as fast, round by round."""
    return round(float(np.median(np.array(baseline.clock) / np.array(way.clock))), 2)


def question(encoder: Encoder) -> float:
    """Milliseconds of a question, in the middle."""
    way = openvino_way(encoder)
    for _ in range(50):
        way.time([_QUESTION])
    return round(float(np.median(way.clock)) * 1000, 2)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=96, help="how many")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="sizes that numpy is tried with")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with Watch() as watch:
        told = measure(options.texts, options.rounds, options.batches)
    corpus = f"{told['texts']} texts of about {TOKENS} tokens from the documentation of Python"
    figures = told | {"target": TARGETS, **watch.figures(), **run_details(corpus)}
    print(json.dumps(figures, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
