"""`geoloc audit --openlineage`: the lineage of an output as OpenLineage run events, for a team's catalogue."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

_SPEC = "https://openlineage.io/spec"
_EVENT = f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"
PRODUCER = "urn:geoloc:audit"
"""The `producer` of all events and facets, a URI."""
_RUNS = uuid.uuid5(uuid.NAMESPACE_URL, "urn:geoloc:runs")
"""The namespace of the ids of runs: equal outputs made at the same time have equal ids, in every export."""


def events(answer: dict[str, Any], workspace: str) -> list[dict[str, Any]]:
    """The events of a tree of `audit`: for each output START and COMPLETE of the run that made it, in order of time.

    A dataset is an output, with its content hash as version; the photos are the dataset `data`. `workspace` names the
    namespace. What is no output of a build, such as a photo, has no events.
    """
    namespace = f"geoloc://{workspace}"
    seen: dict[tuple[str, str], dict[str, Any]] = {}

    def walk(node: dict[str, Any]) -> None:
        key = (node["artefact"], node["content"])
        if key in seen:
            return
        seen[key] = node
        for branch in node["made_from"]:
            walk(branch)

    for root in [answer] if "made_from" in answer else []:
        walk(root)
    made = [one for node in seen.values() if "settings" in node for one in _of_output(node, namespace)]
    return sorted(made, key=lambda one: one["eventTime"])


def _of_output(node: dict[str, Any], namespace: str) -> Iterator[dict[str, Any]]:
    started = datetime.fromisoformat(node["started_at"])
    common = {
        "producer": PRODUCER,
        "schemaURL": _EVENT,
        "run": {"runId": str(uuid.uuid5(_RUNS, _identity(node))), "facets": _run_facets(node, namespace)},
        "job": {"namespace": namespace, "name": node["artefact"], "facets": _job_facets(node)},
        "inputs": [_input(one, namespace) for one in node["made_from"]],
    }
    yield {"eventType": "START", "eventTime": started.isoformat(), **common, "outputs": []}
    ended = started + timedelta(seconds=node["seconds"])
    yield {
        "eventType": "COMPLETE",
        "eventTime": ended.isoformat(),
        **common,
        "outputs": [{"namespace": namespace, "name": node["artefact"], "facets": _version(node["content"])}],
    }


def _identity(node: dict[str, Any]) -> str:
    return "\n".join((node["artefact"], node["content"], node["started_at"]))


def _input(node: dict[str, Any], namespace: str) -> dict[str, Any]:
    """A dataset that was read, with what the checks found on it."""
    found: dict[str, Any] = {
        "namespace": namespace,
        "name": node["artefact"],
        "facets": _version(node["content"]),
    }
    if checks := [one for one in node.get("checks", ()) if one["result"] != "not run"]:
        assertions = [{"assertion": one["name"], "success": one["result"] != "failed"} for one in checks]
        found["inputFacets"] = {
            "dataQualityAssertions": _facet("1-0-1/DataQualityAssertionsDatasetFacet", assertions=assertions)
        }
    return found


def _version(content: str) -> dict[str, Any]:
    return {"version": _facet("1-0-1/DatasetVersionDatasetFacet", datasetVersion=content)}


def _job_facets(node: dict[str, Any]) -> dict[str, Any]:
    kind = {"processingType": "BATCH", "integration": "GEOLOC", "jobType": node["stage"].upper()}
    return {"jobType": _facet("2-0-3/JobTypeJobFacet", **kind)}


def _run_facets(node: dict[str, Any], namespace: str) -> dict[str, Any]:
    """The settings, code and environment of a run; and the Dagster run that it was a step of."""
    facets: dict[str, Any] = {
        "geoloc_record": {
            "_producer": PRODUCER,
            "_schemaURL": f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/RunFacet",
            **{name: node[name] for name in _KEPT},
            "checks": node["checks"],
        },
        "processing_engine": _facet(
            "1-1-1/ProcessingEngineRunFacet",
            version=node["environment"].get("geoloc", "unknown"),
            name="geoloc",
        ),
    }
    if run := node["dagster_run"]:
        facets["parent"] = _facet(
            "1-0-1/ParentRunFacet",
            run={"runId": run},
            job={"namespace": namespace, "name": f"build_{node['recipe']}"},
        )
    return facets


_KEPT = (
    "settings", "settings_hash", "code_version", "code_commit", "code_dirty", "code_patch", "workspace_commit",
    "workspace_dirty", "workspace_patch", "environment", "hardware", "mlflow_run", "dagster_run", "taken_from",
    "accepted", "taken_down", "models",
)  # fmt: skip


def _facet(schema: str, **values: Any) -> dict[str, Any]:
    """A standard facet with its required fields."""
    name = schema.partition("/")[2]
    return {
        "_producer": PRODUCER,
        "_schemaURL": f"{_SPEC}/facets/{schema}.json#/$defs/{name}",
        **values,
    }
