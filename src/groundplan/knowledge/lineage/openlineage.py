"""Lineage as OpenLineage events (spec 2-0-2), from the source to the answer. Pure: rows in, events out.

A document is an output of reading its source, its passages are outputs of cutting it in one version; what a call
retrieved has passages as its inputs, and documents that contradict one; the answer has what was retrieved, beside the
documents themselves. No question, no passage's text and no answer is in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid5

SCHEMA: Final = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
PRODUCER: Final = "https://groundplan.example/knowledge"
_FACETS: Final = "https://openlineage.io/spec/facets/1-0-0"
_RUNS: Final = UUID("6f0b9f0c-3d0e-5f7e-9a43-6a1d0f5b8c11")
"""Names the runs that have no id of their own: the same export gives the same ids."""

Row = Mapping[str, Any]


def events(company: str, calls: Iterable[Row], documents: Mapping[str, Row]) -> Iterator[dict[str, Any]]:
    """The start and the end of each run: of reading each version of a document, and of cutting it into passages, in
    front of the first call that used them; then of the retrieval of that call, and of the call. Documents that are gone
    keep their id as their name."""
    space = f"groundplan/{company}"
    known: set[tuple[str, int | None]] = set()
    cut: set[str] = set()
    for call in calls:
        ended = call["at"] + timedelta(milliseconds=call["duration_ms"] or 0)
        versions = {each["document"]: each["version"] for each in call["passages"]}
        named = {id: _dataset(space, id, documents.get(id), version) for id, version in versions.items()}
        given = [each for each in call["passages"] if each["role"] == "passage"]
        passages = [_passage(named[each["document"]], each) for each in given]
        whole = [named[each["document"]] for each in call["passages"] if each["role"] != "passage"]
        for id, version in versions.items():
            if id not in documents:
                continue
            at = documents[id]["versions"].get(version, call["at"])
            if (id, version) not in known:
                known.add((id, version))
                yield from _read_run(space, documents[id], named[id], version, at)
            own = [each for one, each in zip(given, passages, strict=True) if one["document"] == id]
            if new := [each for each in own if _key(each) not in cut]:
                cut |= set(map(_key, new))
                yield from _chunk_run(space, documents[id], named[id], new, at)
        found = {"namespace": space, "name": f"retrieval/{call['id']}"}
        answer = {"namespace": space, "name": f"answer/{call['id']}"}
        job = {"namespace": space, "name": f"workload/{call['workload']}"}
        run = {"runId": str(call["id"])}
        parent = {"parent": _facet("ParentRunFacet", run=run, job=job)}
        retrieval = {"runId": _id("retrieval", call["id"]), "facets": parent}
        name = {"namespace": space, "name": f"retrieval/{call['workload']}"}
        yield from _run(name, retrieval, [*passages, *whole], [found], call["at"], call["at"])
        inputs = [*(named[id] for id in sorted(named)), found]
        yield from _run(job, run, inputs, [answer], call["at"], ended, failed=call["status"] != "ok")


def _read_run(space: str, document: Row, named: Row, version: int | None, at: datetime) -> Iterator[dict[str, Any]]:
    """A version of a document is read from its source."""
    source = {"namespace": space, "name": f"source/{document['source']}"}
    run = {"runId": _id("read", document["id"], version)}
    yield from _run({"namespace": space, "name": f"read/{document['source']}"}, run, [source], [named], at, at)


def _chunk_run(space: str, document: Row, named: Row, passages: list[Any], at: datetime) -> Iterator[dict[str, Any]]:
    """A document is cut into passages."""
    run = {"runId": _id("cut", *map(_key, passages))}
    yield from _run({"namespace": space, "name": f"cut/{document['source']}"}, run, [named], passages, at, at)


def _key(passage: Row) -> str:
    return f"{passage['namespace']}/{passage['name']}"


def _run(
    job: Row, run: Row, inputs: list[Any], outputs: list[Any], began: datetime, ended: datetime, *, failed: bool = False
) -> Iterator[dict[str, Any]]:
    for type_, at in (("START", began), ("FAIL" if failed else "COMPLETE", ended)):
        yield {
            "eventType": type_, "eventTime": at.isoformat(), "producer": PRODUCER, "schemaURL": SCHEMA, "run": run,
            "job": job, "inputs": inputs, "outputs": outputs,
        }  # fmt: skip


def _id(*names: object) -> str:
    return str(uuid5(_RUNS, "/".join(map(str, names))))


def _dataset(space: str, id: str, document: Row | None, version: int | None) -> dict[str, Any]:
    """A document in the version in which it was used."""
    if document is None:
        return {"namespace": space, "name": f"document/{id}"}
    facets: dict[str, Any] = {
        "documentation": _facet("DocumentationDatasetFacet", description=document["title"]),
        "version": _facet("DatasetVersionDatasetFacet", datasetVersion=str(version or document["version"])),
        "dataSource": _facet(
            "DatasourceDatasetFacet", name=document["source"], uri=f"groundplan:source/{document['source']}"
        ),
    }
    if document["owner"]:
        facets["ownership"] = _facet("OwnershipDatasetFacet", owners=[{"name": document["owner"], "type": "owner"}])
    return {"namespace": f"{space}/{document['source']}", "name": document["path"], "facets": facets}


def _passage(document: Row, passage: Row) -> dict[str, Any]:
    name = f"{document['name']}#{passage['version'] or 0}:{passage['first_line']}-{passage['last_line']}"
    return {"namespace": document["namespace"], "name": name}


def _facet(kind: str, **values: Any) -> dict[str, Any]:
    return {"_producer": PRODUCER, "_schemaURL": f"{_FACETS}/{kind}.json#/$defs/{kind}", **values}
