"""Precision and recall of near-duplicates on generated documents with known edits, by the size of the edit.

    python benchmarks/knowledge_duplicates.py [--documents 3000] [--seed 11] [--json]

Each copy has a known share of its words replaced, left out or added; up to 20 % it should be found. Not to be found are
documents of the same company and topic, and documents in which 60 % or 80 % of the prose is rewritten under the same
headings. Prints the copies found by edit size, and precision and recall over all pairs.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path

from groundplan.knowledge.parsing.prepare import sketch, words_of
from groundplan.knowledge.quality.duplicates import near_duplicates
from groundplan.testing.documents import edit_words, generate_documents, rewrite_lines

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.knowledge_machine import run_details

EDITS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2)
REWRITES = (0.6, 0.8)


def measure(count: int, seed: int) -> dict[str, object]:
    """Figures of `count` originals, each of which is copied with one of the edits or rewritten by one of the shares."""
    rng = random.Random(seed)
    texts = [document.body for document in generate_documents(count, seed)]
    kinds: dict[int, tuple[str, float, int]] = {}
    choices = [("edited", share) for share in EDITS] + [("rewritten", share) for share in REWRITES]
    for original in range(count):
        kind, share = choices[original % len(choices)]
        copy = (
            edit_words(texts[original], share, rng) if kind == "edited" else rewrite_lines(texts[original], share, rng)
        )
        kinds[len(texts)] = (kind, share, original)
        texts.append(copy)
    started = time.process_time()
    sketches = [sketch(words_of(text)) for text in texts]
    found_pairs = {
        (pair.one, pair.other)
        for pair in near_duplicates(sketches, lambda places: {index: texts[index] for index in places})
    }
    seconds = time.process_time() - started
    expected_pairs = {(original, index) for index, (kind, _, original) in kinds.items() if kind == "edited"}
    found_copies = found_pairs & expected_pairs
    by_edit = {
        f"{share:.0%}": {
            "copies": len(copies := {pair for pair in expected_pairs if kinds[pair[1]][1] == share}),
            "found": len(copies & found_pairs), "recall": round(len(copies & found_pairs) / len(copies), 4),
        }
        for share in EDITS
    }  # fmt: skip
    rewritten_found = {
        f"{share:.0%}": sum(
            (original, index) in found_pairs
            for index, (kind, rewrite_share, original) in kinds.items()
            if kind == "rewritten" and rewrite_share == share
        )
        for share in REWRITES
    }
    return {
        "precision": round(len(found_copies) / max(1, len(found_pairs)), 4),
        "recall": round(len(found_copies) / len(expected_pairs), 4),
        "by_edit": by_edit,
        "rewritten_taken_for_copies": rewritten_found,
        "documents": len(texts),
        "pairs_found": len(found_pairs),
        "cpu_seconds": round(seconds, 2),
        **run_details(f"generated: {count} documents and as many copies, seed {seed}"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=3000, help="originals; as many copies are made of them")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    arguments = parser.parse_args()
    figures = measure(arguments.documents, arguments.seed)
    if arguments.json:
        print(json.dumps(figures))
        return
    for key, value in figures.items():
        print(f"{key:28} {value}")


if __name__ == "__main__":
    main()
