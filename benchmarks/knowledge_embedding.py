"""Texts embedded per second: plain numpy with its best batch size and OpenVINO, each on two threads.

Texts are passages of about 200 tokens of the documentation that comes with Python, the same for all. The baseline is
the plain numpy encoder with the batch size that is fastest here, in the faster of two ways to use two threads:
`products`, two threads in its matrix products, and `halves`, two threads of our own, each with half of the texts and
one thread in its products (under other load the threads of products wait for each other). All sizes are first tried on
some of the texts, the fastest go through all rounds. All run in one process, in turns; `ratio` is the median of the
rounds' own ratios to the baseline, `ratio_of_best` that of the fastest rounds, `ratio_to` the same as `ratio` for each
way; `cpu_ratio` compares texts per CPU second. `cosine` is the smallest of any text to numpy's vector.
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
_TRIAL_TEXTS: Final = 16
"""Texts that batch sizes are tried on."""
_QUESTION = "How many days of paid leave do I get?"


@dataclass
class EmbeddingWay:
    """One way to embed, with the elapsed and the CPU seconds of each round."""

    embed: Callable[[list[str]], Any]
    elapsed: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def run_round(self, texts: list[str]) -> None:
        """Embed the texts once, and record the times."""
        clock, cpu = time.perf_counter(), time.process_time()
        self.embed(texts)
        self.elapsed.append(time.perf_counter() - clock)
        self.cpu.append(time.process_time() - cpu)

    @property
    def best_elapsed(self) -> float:
        return min(self.elapsed)


def sample_texts(encoder: Encoder, count: int) -> list[str]:
    """`count` texts of about 200 tokens, joined from passages."""
    joined_texts: list[str] = []
    parts: list[str] = []
    for passage in passages():
        parts.append(passage)
        joined = " ".join(parts)
        if len(joined) > 3 * TOKENS and count_tokens(encoder, [joined])[0] >= TOKENS:
            joined_texts.append(" ".join(joined.split()[:150]))
            parts = []
        if len(joined_texts) == count:
            break
    return joined_texts


def numpy_way(encoder: Encoder, batch: int, *, halves: bool = False) -> EmbeddingWay:
    """Plain numpy on two threads: in its matrix products, or (`halves`) two of our own."""

    def embed(texts: list[str]) -> Any:
        plain._BATCH_TEXTS, plain._BATCH_TOKENS = batch, batch * plain.WINDOW_TOKENS
        if not halves:
            with threadpool_limits(limits=THREADS, user_api="blas"):
                return encoder.embed(texts)
        with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(THREADS) as threads:
            return np.concatenate(list(threads.map(encoder.embed, (texts[0::2], texts[1::2]))))

    return EmbeddingWay(embed)


def openvino_way(encoder: Encoder) -> EmbeddingWay:
    """OpenVINO as the product uses it."""

    def embed(texts: list[str]) -> Any:
        plain._BATCH_TEXTS, plain._BATCH_TOKENS = SHIPPED
        with threadpool_limits(limits=1, user_api="blas"):
            return encoder.embed(texts)

    return EmbeddingWay(embed)


def fastest_batches(
    encoder: Encoder, texts: list[str], batches: Sequence[int], *, halves: bool
) -> tuple[dict[int, float], list[int]]:
    """(texts a second by batch size, the two fastest sizes)"""
    ways = {batch: numpy_way(encoder, batch, halves=halves) for batch in batches}
    for way in ways.values():
        way.run_round(texts[:_TRIAL_TEXTS])
        way.run_round(texts[:_TRIAL_TEXTS])
    speed = {batch: round(min(_TRIAL_TEXTS, len(texts)) / way.best_elapsed, 1) for batch, way in ways.items()}
    return speed, sorted(speed, key=lambda batch: -speed[batch])[:2]


def measure(count: int, rounds: int, batches: Sequence[int]) -> dict[str, Any]:
    """All figures."""
    folder = ensure(load_settings().models, MINILM.name)
    plain_encoder = Encoder(folder)
    encoders: dict[str, OpenVinoEncoder] = {name: OpenVinoEncoder(folder, name, threads=THREADS) for name in PRECISIONS}
    texts = sample_texts(plain_encoder, count)
    tokens = float(np.mean(count_tokens(plain_encoder, texts)))
    speed, sizes = fastest_batches(plain_encoder, texts, batches, halves=False)
    _, halves = fastest_batches(plain_encoder, texts, batches, halves=True)
    ways = {f"numpy {size}": numpy_way(plain_encoder, size) for size in sizes}
    ways["halves"] = numpy_way(plain_encoder, halves[0], halves=True)
    ways |= {name: openvino_way(encoder) for name, encoder in encoders.items()}
    for way in ways.values():
        way.embed(texts[:_TRIAL_TEXTS])
    for _ in range(rounds):
        for way in ways.values():
            way.run_round(texts)
    size = min(sizes, key=lambda size: float(np.median(ways[f"numpy {size}"].elapsed)))
    numpy_ways = {"products": ways[f"numpy {size}"], "halves": ways["halves"]}
    fastest_name = min(numpy_ways, key=lambda name: float(np.median(numpy_ways[name].elapsed)))
    baseline = numpy_ways[fastest_name]
    reference_vectors = np.asarray(numpy_ways["products"].embed(texts))
    figures: dict[str, Any] = {
        "texts": len(texts),
        "tokens": round(tokens, 1),
        "rounds": rounds,
        "baseline": fastest_name,
        "products": {**speeds(numpy_ways["products"], count), "threads": THREADS, "batch": size, "tried": speed},
        "halves": {**speeds(numpy_ways["halves"], count), "threads": THREADS, "batch": halves[0]},
    }
    for name, encoder in encoders.items():
        way = ways[name]
        figures[name] = {
            **speeds(way, count),
            "ratio": median_ratio(baseline, way),
            "ratio_of_best": round(baseline.best_elapsed / way.best_elapsed, 2),
            "ratio_to": {name: median_ratio(other_way, way) for name, other_way in numpy_ways.items()},
            "cpu_ratio": round(float(np.median(baseline.cpu) / np.median(way.cpu)), 2),
            "cosine": round(float((encoder.embed(texts) * reference_vectors).sum(axis=1).min()), 7),
            "query_p50_ms": question_ms(encoder),
        }
    return figures


def speeds(way: EmbeddingWay, count: int) -> dict[str, float]:
    """Texts a second in the median round and in the fastest one."""
    return {
        "texts_a_second": round(count / float(np.median(way.elapsed)), 1),
        "best_texts_a_second": round(count / way.best_elapsed, 1),
    }


def median_ratio(baseline: EmbeddingWay, way: EmbeddingWay) -> float:
    """How many times as fast `way` is, as the median over the rounds."""
    return round(float(np.median(np.array(baseline.elapsed) / np.array(way.elapsed))), 2)


def question_ms(encoder: Encoder) -> float:
    """The median milliseconds of embedding a question."""
    way = openvino_way(encoder)
    for _ in range(50):
        way.run_round([_QUESTION])
    return round(float(np.median(way.elapsed)) * 1000, 2)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=96, help="how many")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="sizes that numpy is tried with")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with Watch() as watch:
        results = measure(options.texts, options.rounds, options.batches)
    corpus = f"{results['texts']} texts of about {TOKENS} tokens from the documentation of Python"
    figures = results | {"target": TARGETS, **watch.figures(), **run_details(corpus)}
    print(json.dumps(figures, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
