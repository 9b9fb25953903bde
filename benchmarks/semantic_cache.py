"""How many true repeats the semantic cache answers, and how many answers are wrong, on pairs it was not tuned on.

    python benchmarks/semantic_cache.py PAIRS.jsonl --json           any {"a", "b", "same"[, "kind", "group"]}
    python benchmarks/semantic_cache.py --generated SEEDS --json     pairs of intents that settings never saw
    python benchmarks/semantic_cache.py --public GPTCACHE.json.gz --json    the public pairs, which set the threshold
    python benchmarks/semantic_cache.py --tune GPTCACHE.json.gz      learn acceptance.json anew (development pairs only)
    python benchmarks/semantic_cache.py --kinds                      of it the kinds of difference alone

A pair is a hit where one answer would be given to both once the workload has proven itself: it matches, and of each
kind of its difference (`differences`) there is evidence; or a guard refuses it, and there is of the two ways in which
it is put (`ways`). Texts are embedded as questions are on this machine, those that settings come of in float32. That is
learned as a workload's checks teach it, from pairs of other intents: four fifths of them for each fifth, beside what
ships; a kind that they show to be wrong is off. So nothing that is told of a pair comes of its own intent. `as_shipped`
are the figures with the evidence that ships alone, as on the first day; `matches` those without any: what a workload
checks before it gives.

`hit_rate` is the share of true repeats that hit, `wrong_rate`
the share of all hits that are wrong, `wrong_upper` its 95 % bound. Hits of one intent are not independent, so for the
bound each intent with hits counts once, with the share of its hits that are wrong (Clopper-Pearson, that sum rounded
up): as if all hits of an intent were one. `wrong_upper_independent` takes each hit for itself. In a file an intent is a
`group`, or else all pairs that a text of them connects. Kinds of traps are as the file names them, or else the guard
that refused them. `read_ms` and `judge_ms` are CPU: to read a question, and to compare it with another one (the mean of
all pairs, refused ones among them).

`--alone` tells beside it what likeness of the embedding alone would do, with the threshold that would have been best
in hindsight. Needs the embedding model on this machine; nothing is fetched.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from math import ceil, inf
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import semantic_families, semantic_pairs, semantic_put, semantic_tune
from benchmarks.provenance import commit, machine
from benchmarks.semantic_labelled import Pair, read_pairs
from benchmarks.semantic_public import MORE, SORT, TOLD_APART, Texts, public

from groundplan.core.errors import GroundplanError
from groundplan.economics.semantic import equivalence
from groundplan.economics.semantic.equivalence import Acceptance, Verdict
from groundplan.economics.semantic.phrasing import read_question
from groundplan.economics.semantic.similarity import cosine
from groundplan.gateway.caching.semantic import MAX_QUESTION_CHARS

PARTS = 5
MATCHED = ("hits", "wrong", "hit_rate", "wrong_rate", "wrong_upper")
ARTIFACT = Path(equivalence.__file__).with_name("acceptance.json")


def comparable(pair: Pair) -> bool:
    """Whether the gateway compares questions of that length."""
    return max(len(pair.a), len(pair.b)) <= MAX_QUESTION_CHARS


def measure(pairs: Sequence[Pair], bound: float, texts: Texts | None = None, *, alone: bool = False) -> dict[str, Any]:
    """Figures of pairs with the shipped acceptance."""
    return judged(equivalence.load_acceptance(), pairs, bound, texts or Texts(), alone=alone)


def judged(
    acceptance: Acceptance, pairs: Sequence[Pair], bound: float, texts: Texts, *, alone: bool = False
) -> dict[str, Any]:
    """Figures of pairs with an acceptance. `alone`: for comparison, by the embedding alone. Pairs that words alone
    refuse are not embedded."""
    threshold = acceptance.threshold(bound)
    verdicts, spent = judgements(acceptance, pairs, texts)
    sure = np.array([verdict.score >= threshold for verdict in verdicts])
    matches = sure & np.array([not verdict.veto for verdict in verdicts])
    same = np.array([pair.same for pair in pairs])
    intents = clusters(pairs)
    hits = sure & evidenced(verdicts, sure, same, intents, acceptance.kinds)
    told = rates(hits, same, intents) | {"declared_bound": bound}
    told |= {"read_ms": round(reading(pairs) * 1000, 3), "judge_ms": round(spent * 1000, 3)}
    told["bound_kept"] = bool(told["wrong_rate"] <= bound)
    told["bound_kept_95"] = bool(told["wrong_upper"] <= bound)
    for name, given in (("as_shipped", as_shipped(verdicts, threshold)), ("matches", matches)):
        found = rates(given, same, intents)
        told[name] = {figure: found[figure] for figure in MATCHED}
    told["traps"] = by_kind(pairs, verdicts, hits)
    missed = [(verdict.veto, pair.same) for verdict, pair, hit in zip(verdicts, pairs, hits, strict=True) if not hit]
    told["vetoes"] = dict(Counter(kind for kind, repeat in missed if kind and not repeat))
    told["vetoed_repeats"] = dict(Counter(kind for kind, repeat in missed if kind and repeat))
    if not alone:
        return told
    cosines = np.array([cosine(texts.said(pair.a), texts.said(pair.b)) if comparable(pair) else 0.0 for pair in pairs])
    return told | {"cosine_alone": hindsight(cosines, same, bound)}


def reading(pairs: Sequence[Pair]) -> float:
    """CPU seconds of reading a text, for the first thousand, each read before."""
    texts = list(dict.fromkeys(text for pair in pairs if comparable(pair) for text in (pair.a, pair.b)))[:1000]
    for text in texts:
        read_question(text)
    began = time.thread_time()
    for text in texts:
        read_question(text)
    return (time.thread_time() - began) / max(1, len(texts))


def judgements(acceptance: Acceptance, pairs: Sequence[Pair], texts: Texts) -> tuple[list[Verdict], float]:
    """The verdict of each pair, and the CPU seconds of one, without reading and embedding."""
    verdicts, spent = [], 0.0
    for pair in pairs:
        if not comparable(pair):
            verdicts.append(Verdict(-inf, "long"))
            continue
        one, other = texts.read(pair.a), texts.read(pair.b)
        began = time.thread_time()
        found = equivalence.compare_words(one, other)
        spent += time.thread_time() - began
        if isinstance(found, str):
            verdicts.append(Verdict(-inf, found))
            continue
        both = texts.said(pair.a), texts.said(pair.b)
        began = time.thread_time()
        verdicts.append(equivalence.judge(acceptance, *both, found))
        spent += time.thread_time() - began
    return verdicts, spent / len(pairs)


def evidenced(verdicts: Sequence[Verdict], sure: Any, same: Any, intents: Sequence[str], known: frozenset[str]) -> Any:
    """For each pair whether there is evidence of all its kinds of difference, shipped or from the `sure` pairs of other
    parts, which a workload would check. An intent is in one part only."""
    rows = list(zip([verdict.kinds for verdict in verdicts], intents, same.tolist(), strict=True))
    part = {intent: place % PARTS for place, intent in enumerate(sorted(set(intents)))}
    proven = [
        semantic_tune.shown(
            (row for row, checked in zip(rows, sure, strict=True) if part[row[1]] != own and checked),
            known,
        )
        for own in range(PARTS)
    ]
    return np.array([kinds <= proven[part[intent]] for kinds, intent, _ in rows])


def rates(hits: Any, same: Any, intents: Sequence[str]) -> dict[str, Any]:
    """Hit and wrong rates with their bounds."""
    wrong, given, repeats = int((hits & ~same).sum()), int(hits.sum()), int(same.sum())
    shares = wrong_shares(hits, same, intents)
    return {
        "pairs": len(same), "repeats": repeats, "hits": given, "wrong": wrong,
        "hit_rate": round(int((hits & same).sum()) / max(1, repeats), 4),
        "wrong_rate": round(wrong / max(1, given), 5),
        "wrong_upper": round(equivalence.share_upper_bound(ceil(sum(shares)), len(shares)), 5) if given else 1.0,
        "wrong_upper_independent": round(equivalence.share_upper_bound(wrong, given), 5) if given else 1.0,
        "intents": len(set(intents)), "intents_hit": len(shares),
        "wrong_per_lookup": round(wrong / len(same), 5),
        "wrong_per_lookup_upper": round(equivalence.share_upper_bound(wrong, len(same)), 5),
    }  # fmt: skip


def wrong_shares(hits: Any, same: Any, intents: Sequence[str]) -> list[float]:
    """For each intent with hits the share of wrong ones."""
    given, wrong = Counter[str](), Counter[str]()
    for intent, hit, right in zip(intents, hits, same, strict=True):
        given[intent] += bool(hit)
        wrong[intent] += bool(hit and not right)
    return [wrong[intent] / count for intent, count in given.items() if count]


def clusters(pairs: Sequence[Pair]) -> list[str]:
    """The intent that each pair belongs to: its group, or else all pairs that share a text."""
    root: dict[str, str] = {}

    def find(text: str) -> str:
        while root.setdefault(text, text) != text:
            root[text] = root[root[text]]
            text = root[text]
        return text

    for pair in pairs:
        if not pair.group:
            root[find(pair.a)] = find(pair.b)
    return [pair.group or find(pair.a) for pair in pairs]


def by_kind(pairs: Sequence[Pair], verdicts: Sequence[equivalence.Verdict], hits: Any) -> dict[str, dict[str, int]]:
    """For each kind of trap its count, and how many were answered. A trap without a kind has that of the guard that
    refused it."""
    told: dict[str, dict[str, int]] = {}
    for pair, verdict, hit in zip(pairs, verdicts, hits, strict=True):
        if not pair.same:
            kind = told.setdefault(pair.kind or verdict.veto or "no guard", {"traps": 0, "wrong": 0})
            kind["traps"] += 1
            kind["wrong"] += bool(hit)
    return dict(sorted(told.items()))


def hindsight(cosines: Any, same: Any, bound: float) -> dict[str, Any]:
    """The most repeats that a threshold on similarity alone hits within the bound."""
    best = {"hit_rate": 0.0, "threshold": 1.0}
    for threshold in np.unique(cosines):
        hits = cosines >= threshold
        if (hits & ~same).sum() <= bound * hits.sum():
            rate = float((hits & same).sum() / max(1, same.sum()))
            if rate > best["hit_rate"]:
                best = {"hit_rate": round(rate, 4), "threshold": round(float(threshold), 4)}
    return best


def development(found: Sequence[Pair]) -> list[Pair]:
    """The pairs for training, with those `found` of the public ones; never reported."""
    makers = (semantic_pairs.pairs, semantic_pairs.plain, semantic_pairs.qualified)
    rows = [row for seed in range(1, 7) for make in makers for row in make("tune", seed)]
    put = of_intents("open", list(semantic_put.generate_pairs("open", 1)))
    return [*of_intents("tune", rows), *put, *found]


EVIDENCE = (*(("tune", seed) for seed in range(1, 7)), ("all", 1), ("asked", 1), ("anew", 1), ("outside", 1))
"""Families and seeds that give evidence of kinds of difference."""


def kinds(texts: Texts) -> frozenset[str]:
    """The kinds of difference with such evidence."""
    pairs = [
        pair
        for family, seed in EVIDENCE
        for pair in of_intents(family, semantic_families.generate_family(family, seed))
    ]
    ways = (texts.read, texts.said), (lambda text: texts.written(text).reading, texts.written)
    return semantic_tune.evidenced(pairs, [pair.group for pair in pairs], *ways)


def some() -> list[Pair]:
    """Some training pairs of each kind, from which the digest of the rule is computed."""
    rows = [row for make in (semantic_pairs.pairs, semantic_pairs.plain) for row in make("tune", 1, 1)]
    return of_intents("tune", rows)[::2] + of_intents("open", list(semantic_put.generate_pairs("open", 1, 1)))[::3]


def tuned(found: Sequence[Pair], texts: Texts, shown: frozenset[str]) -> Acceptance:
    """The acceptance trained on development pairs, with the proven kinds of difference."""
    pairs = development(found)
    harder, odd = [pair.kind in TOLD_APART for pair in pairs], [pair.kind in (MORE, SORT) for pair in pairs]
    return semantic_tune.tune(
        pairs, [pair.group for pair in pairs], [texts.seen(pair) for pair in pairs], shown, harder, odd
    )


def written(acceptance: Acceptance) -> None:
    """Write the shipped file."""
    ARTIFACT.write_bytes(msgspec.json.format(msgspec.json.encode(acceptance, order="sorted"), indent=1) + b"\n")


def held_out(found: Sequence[Pair], bound: float, texts: Texts) -> dict[str, Any]:
    """Figures of the public pairs, each with weights and a threshold trained on others: five-fold by texts."""
    parts = [int(pair.group.split()[-1]) % PARTS for pair in found]
    hits = np.zeros(len(found), dtype=bool)
    for part in range(PARTS):
        rest = [pair for pair, its in zip(found, parts, strict=True) if its != part]
        acceptance = tuned(rest, texts, equivalence.load_acceptance().kinds)
        for place, (pair, its) in enumerate(zip(found, parts, strict=True)):
            if its == part and comparable(pair):
                verdict = equivalence.judge(acceptance, texts.said(pair.a), texts.said(pair.b))
                hits[place] = verdict.score >= acceptance.threshold(bound) and not verdict.unproven
    told_by_themselves = np.array([pair.kind in TOLD_APART for pair in found])
    rest = [pair for pair in found if pair.kind not in TOLD_APART]
    told = rates(hits[~told_by_themselves], np.array([pair.same for pair in rest]), clusters(rest))
    kinds = Counter(pair.kind for pair, hit in zip(found, hits, strict=True) if hit and not pair.same)
    return {name: told[name] for name in MATCHED} | {"wrong_by_kind": dict(kinds)}


def beside(found: Sequence[Pair], draw: int, bound: float, texts: Texts) -> dict[str, Any]:
    """Parts of the public pairs that are reported; they are left out of training."""
    acceptance, hard = equivalence.load_acceptance(), [pair for pair in found if pair.kind in TOLD_APART]
    verdicts, _ = judgements(acceptance, hard, texts)
    told = {"told_apart": by_kind(hard, verdicts, as_shipped(verdicts, acceptance.threshold(bound)))}
    return told | ({} if draw else {"held_out": held_out(found, bound, texts)})


def as_shipped(verdicts: Sequence[Verdict], threshold: float) -> Any:
    """For each pair whether it is served on the first day."""
    return np.array([v.score >= threshold and not v.veto and not v.unproven for v in verdicts])


def of_intents(family: str, rows: Sequence[dict[str, Any]]) -> list[Pair]:
    """Pairs of a generator, each with its intent."""
    return [Pair(row["a"], row["b"], row["same"], row["kind"], f"{family} {row['intent']}") for row in rows]


def learned(given: argparse.Namespace) -> bool:
    """Train and write a new shipped file if requested; returns whether it did."""
    if given.tune is not None:
        found = public(given.tune)
        texts = Texts(served=False)
        written(msgspec.structs.replace(tuned(found, texts, kinds(texts)), rule=semantic_tune.rule_digest(some())))
    elif given.kinds:
        written(msgspec.structs.replace(equivalence.load_acceptance(), kinds=kinds(Texts(served=False))))
    return given.tune is not None or bool(given.kinds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="?", type=Path)
    parser.add_argument("--generated", nargs="+", type=int, metavar="SEED")
    parser.add_argument("--family", choices=tuple(semantic_families.FAMILIES), default="wide")
    parser.add_argument("--public", type=Path, metavar="GPTCACHE")
    parser.add_argument("--tune", type=Path, metavar="GPTCACHE")
    parser.add_argument("--kinds", action="store_true")
    parser.add_argument("--draw", type=int, default=0, help="of the traps of --public; only 0 is left out by fifths")
    parser.add_argument("--bound", type=float, default=0.01)
    parser.add_argument("--alone", action="store_true", help="tell what the embedding alone would do, too: slow")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if not 0 < given.bound < 1:
        parser.error("--bound is a share between 0 and 1, such as 0.01")
    try:
        if learned(given):
            return 0
        if given.generated:
            rows = [row for seed in given.generated for row in semantic_families.generate_family(given.family, seed)]
            pairs = of_intents(given.family, rows)
        elif given.public is not None:
            found = public(given.public, given.draw)
            pairs = [pair for pair in found if pair.kind not in TOLD_APART]
        elif given.pairs is not None:
            pairs = read_pairs(given.pairs)
        else:
            parser.error("name PAIRS.jsonl, --generated SEEDS or --public GPTCACHE")
        texts = Texts()
        told = measure(pairs, given.bound, texts, alone=given.alone)
        if given.public is not None:
            told |= beside(found, given.draw, given.bound, texts)
    except GroundplanError as error:
        sys.stderr.write(f"semantic_cache: {error}\n")
        return error.exit_code
    told["machine"] = machine()
    told["commit"] = commit()
    if given.json:
        print(json.dumps(told))
    else:
        for key, value in told.items():
            print(f"{key}: {json.dumps(value)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
