"""Pictures for the Dagster UI, drawn from a stage's output. They are not content and change no output."""

from __future__ import annotations

from orchestration.lineage.build import Build


def pictures(build: Build, stage: str) -> dict[str, bytes]:
    """PNG pictures, as bytes by title, for the page of a stage's asset; empty for most stages."""
    if stage != "partition":
        return {}
    from geoloc.reports.maps import partition_map
    from orchestration.assets.inputs import load_partitions

    partitions = load_partitions(build.folder("partition"))
    return {f"{name}/map": partition_map(partition) for name, partition in partitions.items()}
