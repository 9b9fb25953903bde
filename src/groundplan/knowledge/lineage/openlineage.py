"""Lineage as OpenLineage events (spec 2-0-2): each grounded answer is a run of its workload, documents are its inputs.

Pure: rows in, events out. No question and no answer is in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

SCHEMA: Final = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
PRODUCER: Final = "https://groundplan.example/knowledge"
_FACETS: Final = "https://openlineage.io/spec/facets/1-0-0"


def events(
    company: str, calls: Iterable[Mapping[str, Any]], documents: Mapping[str, Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """A COMPLETE (or FAIL) event for each call. Documents that are gone keep their id as their name."""
    for call in calls:
        ended = call["at"] + timedelta(milliseconds=call["duration_ms"] or 0)
        yield {
            "eventType": "COMPLETE" if call["status"] == "ok" else "FAIL",
            "eventTime": ended.isoformat(),
            "producer": PRODUCER,
            "schemaURL": SCHEMA,
            "run": {"runId": str(call["id"])},
            "job": {"namespace": f"groundplan/{company}", "name": f"workload/{call['workload']}"},
            "inputs": [_dataset(company, id, documents.get(id)) for id in sorted(call["documents"])],
            "outputs": [{"namespace": f"groundplan/{company}", "name": f"answer/{call['id']}"}],
        }


def _dataset(company: str, id: str, document: Mapping[str, Any] | None) -> dict[str, Any]:
    if document is None:
        return {"namespace": f"groundplan/{company}", "name": f"document/{id}"}
    facets: dict[str, Any] = {
        "documentation": _facet("DocumentationDatasetFacet", description=document["title"]),
        "version": _facet("DatasetVersionDatasetFacet", datasetVersion=str(document["version"])),
        "datasource": _facet(
            "DatasourceDatasetFacet", name=document["source"], uri=f"groundplan:source/{document['source']}"
        ),
    }
    if document["owner"]:
        facets["ownership"] = _facet("OwnershipDatasetFacet", owners=[{"name": document["owner"], "type": "owner"}])
    return {
        "namespace": f"groundplan/{company}/{document['source']}", "name": document["path"], "facets": facets,
    }  # fmt: skip


def _facet(kind: str, **values: Any) -> dict[str, Any]:
    return {"_producer": PRODUCER, "_schemaURL": f"{_FACETS}/{kind}.json#/$defs/{kind}", **values}
