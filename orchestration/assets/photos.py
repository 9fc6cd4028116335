"""Stage photos: the content of the pool, and what is in quarantine."""

from __future__ import annotations

from pathlib import Path

from geoloc.files import write_json
from geoloc.photos.catalog import CATALOG_FILE, read_catalog
from geoloc.photos.pairs import overhead_pool, read_pairs
from geoloc.photos.quarantine import PHOTO, count_reasons, read_quarantine
from orchestration.run.stage import StageResult, StageRun


def build(run: StageRun) -> StageResult:
    catalog = read_catalog(run.workspace.pool)
    quarantine = read_quarantine(run.workspace.pool)
    tiles, pairs = _overhead_tiles(run.workspace.pool), read_pairs(run.workspace.pool)
    sources = catalog["source"].value_counts().sort_index()
    turned_away = quarantine[quarantine["severity"] == PHOTO]
    reasons = count_reasons(quarantine)
    facts = {
        "photos": len(catalog),
        "photographers": int(catalog["photographer"].nunique()),
        "stored": int(catalog["shard"].notna().sum()),
        "stored_bytes": int(catalog["length"].sum()),
        "overhead_tiles": tiles,
        "pairs": len(pairs),
        "sources": {str(name): int(count) for name, count in sources.items()},
        "quarantined": {str(row[0]): int(row[1]) for row in reasons.itertuples(index=False)},
    }
    write_json(run.output / "summary.json", facts)
    run.log(
        f"{len(catalog)} photos by {facts['photographers']} photographers, {len(turned_away)} quarantined"
    )
    return StageResult(
        {
            **facts,
            "photos by source": sources.rename_axis("source").reset_index(name="photos"),
            "quarantine by reason": reasons,
        }
    )


def _overhead_tiles(pool: Path) -> int:
    """The number of overhead tiles in the pool."""
    tiles = overhead_pool(pool)
    return len(read_catalog(tiles, ["photo_id"])) if (tiles / CATALOG_FILE).is_file() else 0
