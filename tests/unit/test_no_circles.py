"""Files import each other in one direction, imports for types alone included: what a file is can be read below it."""

from __future__ import annotations

from graphlib import TopologicalSorter

import grimp


def test_no_file_is_imported_by_what_it_imports() -> None:
    graph = grimp.build_graph("groundplan", cache_dir=None)
    assert len(graph.modules) > 1000
    TopologicalSorter({each: graph.find_modules_directly_imported_by(each) for each in graph.modules}).prepare()
