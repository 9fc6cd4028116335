"""Stage photos: what is in the pool, and what was turned away."""

from __future__ import annotations

from geoloc.files import write_json
from geoloc.photos.catalog import read_catalog
from geoloc.photos.quarantine import read_quarantine
from orchestration.stage_run import StageResult, StageRun


def build(run: StageRun) -> StageResult:
    catalog = read_catalog(run.workspace.pool)
    quarantine = read_quarantine(run.workspace.pool)
    sources = catalog["source"].value_counts().sort_index()
    reasons = quarantine["reason"].value_counts().sort_index()
    facts = {
        "photos": len(catalog),
        "photographers": int(catalog["photographer"].nunique()),
        "stored": int(catalog["shard"].notna().sum()),
        "stored_bytes": int(catalog["length"].sum()),
        "sources": {str(name): int(count) for name, count in sources.items()},
        "quarantined": {str(name): int(count) for name, count in reasons.items()},
    }
    write_json(run.output / "summary.json", facts)
    run.log(f"{len(catalog)} photos by {facts['photographers']} photographers, {len(quarantine)} quarantined")
    return StageResult(
        {
            **facts,
            "photos by source": sources.rename_axis("source").reset_index(name="photos"),
            "quarantine by reason": reasons.rename_axis("reason").reset_index(name="inputs"),
        }
    )
