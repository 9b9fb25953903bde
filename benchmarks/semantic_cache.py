"""How many true repeats the semantic cache answers, and how many answers are wrong, on pairs it was not tuned on.

    python benchmarks/semantic_cache.py PAIRS.jsonl --json           any {"a", "b", "same"[, "kind"]}
    python benchmarks/semantic_cache.py --generated SEEDS --json     pairs of intents that settings never saw
    python benchmarks/semantic_cache.py --tune GPTCACHE.json.gz      learn acceptance.json anew (development pairs only)

A pair is a hit where one answer would be given to both: `hit_rate` is the share of true repeats that hit, `wrong_rate`
the share of all hits that are wrong, `wrong_upper` its 95 % bound. Beside it: likeness of the embedding alone, with the
threshold that would have been best in hindsight. Needs the embedding model on this machine; nothing is fetched.
"""

from __future__ import annotations

import argparse
import gzip
import json
import platform
import runpy
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np

from groundplan.core.errors import GroundplanError, Invalid
from groundplan.core.settings import load_settings
from groundplan.economics.semantic import accept, tune
from groundplan.economics.semantic.likeness import Vector, content
from groundplan.economics.semantic.pairs import Pair, read_pairs
from groundplan.economics.semantic.reading import read
from groundplan.economics.semantic.traps import KINDS, trap
from groundplan.knowledge.embedding.encoder import Encoder

PAIRS: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("semantic_pairs.py")))
"""The generator beside this file, however this one was started."""
ARTIFACT = Path(accept.__file__).with_name("acceptance.json")


class Texts:
    """Embeddings of texts and words, each made once."""

    def __init__(self) -> None:
        folder = load_settings().models / "all-minilm-l6-v2"
        if not (folder / "model.safetensors").exists():
            hint = "Run `groundplan up` once; it fetches the model."
            raise Invalid(f"the embedding model is not in {folder}", code="data_absent", hint=hint)
        self._encoder = Encoder(folder)
        self._known: dict[str, Vector] = {}

    def learn(self, texts: Sequence[str]) -> None:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        for text, vector in zip(new, self._encoder.embed(new), strict=True):
            self._known[text] = vector

    def of(self, text: str) -> Vector:
        return self._known[text]


def embedded(pairs: Sequence[Pair]) -> tuple[Texts, list[float]]:
    """Embeddings of all pairs and their words, and how alike each pair is."""
    texts = Texts()
    texts.learn([text for pair in pairs for text in (pair.a, pair.b)])
    texts.learn([word for pair in pairs for text in (pair.a, pair.b) for word in content(read(text))])
    return texts, [float(texts.of(pair.a) @ texts.of(pair.b)) for pair in pairs]


def measure(pairs: Sequence[Pair], bound: float) -> dict[str, Any]:
    """Figures of pairs under the acceptance that ships."""
    acceptance = accept.shipped()
    threshold = acceptance.threshold(bound)
    texts, cosines = embedded(pairs)
    began = time.thread_time()
    verdicts = [
        accept.judge(acceptance, read(pair.a), read(pair.b), cosine, texts.of)
        for pair, cosine in zip(pairs, cosines, strict=True)
    ]
    spent = (time.thread_time() - began) / len(pairs)
    hits = np.array([verdict.score >= threshold for verdict in verdicts])
    same = np.array([pair.same for pair in pairs])
    told = rates(hits, same) | {"declared_bound": bound, "judge_ms": round(spent * 1000, 3)}
    told["bound_kept"] = bool(told["wrong_rate"] <= bound)
    told["bound_kept_95"] = bool(told["wrong_upper"] <= bound)
    told["traps"] = by_kind(pairs, hits)
    told["vetoes"] = dict(Counter(v.veto for v, pair in zip(verdicts, pairs, strict=True) if v.veto and not pair.same))
    return told | {"cosine_alone": hindsight(np.array(cosines), same, bound)}


def rates(hits: Any, same: Any) -> dict[str, Any]:
    """Hit and wrong rates with their bounds."""
    wrong, given, repeats = int((hits & ~same).sum()), int(hits.sum()), int(same.sum())
    return {
        "pairs": len(same), "repeats": repeats, "hits": given, "wrong": wrong,
        "hit_rate": round(int((hits & same).sum()) / max(1, repeats), 4),
        "wrong_rate": round(wrong / max(1, given), 5),
        "wrong_upper": round(accept.most_wrong(wrong, given), 5) if given else 1.0,
        "wrong_per_lookup": round(wrong / len(same), 5),
        "wrong_per_lookup_upper": round(accept.most_wrong(wrong, len(same)), 5),
    }  # fmt: skip


def by_kind(pairs: Sequence[Pair], hits: Any) -> dict[str, dict[str, int]]:
    """For each kind of trap how many there were, and how many were answered all the same."""
    told: dict[str, dict[str, int]] = {}
    for pair, hit in zip(pairs, hits, strict=True):
        if not pair.same:
            kind = told.setdefault(pair.kind or "unnamed", {"traps": 0, "wrong": 0})
            kind["traps"] += 1
            kind["wrong"] += bool(hit)
    return dict(sorted(told.items()))


def hindsight(cosines: Any, same: Any, bound: float) -> dict[str, Any]:
    """The most repeats that any threshold on likeness alone hits with no more than the bound wrong."""
    best = {"hit_rate": 0.0, "threshold": 1.0}
    for threshold in np.unique(cosines):
        hits = cosines >= threshold
        if (hits & ~same).sum() <= bound * hits.sum():
            rate = float((hits & same).sum() / max(1, same.sum()))
            if rate > best["hit_rate"]:
                best = {"hit_rate": round(rate, 4), "threshold": round(float(threshold), 4)}
    return best


def development(path: Path) -> tuple[list[Pair], list[str]]:
    """The pairs that settings come from, with what must be left out together: never reported."""
    pairs, groups = [], []
    for seed in range(1, 7):
        for row in PAIRS["pairs"]("tune", seed):
            pairs.append(Pair(row["a"], row["b"], row["same"], row["kind"]))
            groups.append(f"intent {row['intent']}")
    with gzip.open(path, "rt") as file:
        given = [row for row in json.load(file) if len(row["origin"]) < 600]
    texts = Texts()
    texts.learn([text for row in given for text in (row["origin"], row["similar"])])
    vectors = np.stack([texts.of(row["origin"]) for row in given])
    alike = vectors @ vectors.T
    np.fill_diagonal(alike, -1)
    dice = Random(5)
    for number, row in enumerate(given):
        added = [Pair(row["origin"], row["similar"], True, "repeat")]
        for kind in dice.sample(KINDS, 3):
            changed = trap(row["similar"], kind, dice) or trap(row["origin"], kind, dice)
            if changed is not None:
                added.append(Pair(row["origin"], changed, False, kind))
        near = int(alike[number].argmax())
        # above that they often are the same after all, though nobody says so
        if max(alike[number, near], float(vectors[number] @ texts.of(given[near]["similar"]))) < 0.8:
            added.append(Pair(row["origin"], given[near]["similar"], False, "intent"))
        pairs += added
        groups += [f"text {number}"] * len(added)
    return pairs, groups


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="?", type=Path)
    parser.add_argument("--generated", nargs="+", type=int, metavar="SEED")
    parser.add_argument("--family", choices=tuple(PAIRS["FAMILIES"]), default="fresh")
    parser.add_argument("--tune", type=Path, metavar="GPTCACHE")
    parser.add_argument("--bound", type=float, default=0.01)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    try:
        if given.tune is not None:
            pairs, groups = development(given.tune)
            texts, cosines = embedded(pairs)
            ARTIFACT.write_bytes(
                msgspec.json.format(msgspec.json.encode(tune.tune(pairs, groups, cosines, texts.of)), indent=1) + b"\n"
            )
            return 0
        if given.generated:
            rows = [row for seed in given.generated for row in PAIRS["pairs"](given.family, seed)]
            pairs = [Pair(row["a"], row["b"], row["same"], row["kind"]) for row in rows]
        elif given.pairs is not None:
            pairs = read_pairs(given.pairs)
        else:
            parser.error("name PAIRS.jsonl, or --generated SEEDS")
        told = measure(pairs, given.bound)
    except GroundplanError as error:
        sys.stderr.write(f"semantic_cache: {error}\n")
        return error.exit_code
    told["machine"] = f"{platform.machine()}, Python {platform.python_version()}"
    told["commit"] = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    if given.json:
        print(json.dumps(told))
    else:
        for key, value in told.items():
            print(f"{key}: {json.dumps(value)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
