"""Precision and recall of near-duplicates on generated documents with known edits, by the size of the edit.

    python benchmarks/knowledge_duplicates.py [--documents 3000] [--seed 11] [--json]

Each copy has a known share of its words replaced, left out or added; up to 20 % it is to be found. What must not be
found: documents of the same company and topic, and documents in which 60 % or 80 % of the prose says something else
under the same headings. Prints by edit size how many were found, and precision and recall over all pairs.
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
OTHERS = (0.6, 0.8)


def measure(count: int, seed: int) -> dict[str, object]:
    """Of `count` originals, each 1/(7+2) is copied with one of the edits or rewritten by one of the shares."""
    dice = random.Random(seed)
    texts = [made.body for made in generate_documents(count, seed)]
    kinds: dict[int, tuple[str, float, int]] = {}
    choices = [("edited", share) for share in EDITS] + [("rewritten", share) for share in OTHERS]
    for original in range(count):
        kind, share = choices[original % len(choices)]
        changed = (
            edit_words(texts[original], share, dice)
            if kind == "edited"
            else rewrite_lines(texts[original], share, dice)
        )
        kinds[len(texts)] = (kind, share, original)
        texts.append(changed)
    began = time.process_time()
    sketches = [sketch(words_of(text)) for text in texts]
    found = {
        (pair.one, pair.other) for pair in near_duplicates(sketches, lambda places: {at: texts[at] for at in places})
    }
    seconds = time.process_time() - began
    wanted = {(original, at) for at, (kind, _, original) in kinds.items() if kind == "edited"}
    right = found & wanted
    by_edit = {
        f"{share:.0%}": {
            "copies": len(some := {pair for pair in wanted if kinds[pair[1]][1] == share}),
            "found": len(some & found), "recall": round(len(some & found) / len(some), 4),
        }
        for share in EDITS
    }  # fmt: skip
    wrong = {
        f"{share:.0%}": sum(
            (original, at) in found for at, (kind, s, original) in kinds.items() if kind == "rewritten" and s == share
        )
        for share in OTHERS
    }
    return {
        "precision": round(len(right) / max(1, len(found)), 4),
        "recall": round(len(right) / len(wanted), 4),
        "by_edit": by_edit,
        "rewritten_taken_for_copies": wrong,
        "documents": len(texts),
        "pairs_found": len(found),
        "cpu_seconds": round(seconds, 2),
        **run_details(f"generated: {count} documents and as many copies, seed {seed}"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=3000, help="originals; as many copies are made of them")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    given = parser.parse_args()
    found = measure(given.documents, given.seed)
    if given.json:
        print(json.dumps(found))
        return
    for key, value in found.items():
        print(f"{key:28} {value}")


if __name__ == "__main__":
    main()
