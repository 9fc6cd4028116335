"""A batch of candidates on its way into the pool: what passed the screening, and what of it the pool has in the end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geoloc.files import sha256_bytes
from geoloc.photos import quarantine
from geoloc.photos.known import Label
from geoloc.photos.lookup import digests
from geoloc.photos.quarantine import Reason
from geoloc.photos.sources.candidates import Candidates


class Batch:
    """A screened batch of N candidates, and which of them the pool has in the end."""

    def __init__(self, batch: Candidates, table: pa.Table, rows: NDArray[np.int64], origin: str) -> None:
        self.batch, self.table, self.rows, self.origin = batch, table, rows, origin
        self.ids: list[str] = table["photo_id"].to_pylist()
        self.places = table["latitude"].to_numpy(), table["longitude"].to_numpy()
        self.pictured = _pictured(batch, rows)
        self.digests = digests(table["photo_id"])
        self._photographers: list[str | None] = table["photographer"].to_pylist()
        self._kept: dict[int, str] = {}

    def label(self, row: int, source: str) -> Label:
        latitude, longitude = (float(values[row]) for values in self.places)
        return Label(self.ids[row], source, latitude, longitude, self._photographers[row])

    def keep(self, row: int, photo_id: str) -> None:
        """The pool has this row, under this id."""
        self._kept[row] = photo_id

    def kept_rows(self) -> pa.Table:
        """What is kept: columns reference, origin, photo_id (the source's) and mended_by (the pool's id)."""
        kept = self.table.select(["reference", "photo_id"]).take(pa.array(list(self._kept), pa.int64()))
        origin = pa.array([self.origin] * len(self._kept), pa.string())
        kept = kept.add_column(1, "origin", origin)
        return kept.append_column("mended_by", pa.array(list(self._kept.values()), pa.string()))

    def renamed(self, rows: list[int], ids: list[str]) -> pa.Table:
        """These rows, with the ids that the pool gives them."""
        table = self.table.take(pa.array(rows, pa.int64()))
        return table.set_column(
            table.schema.get_field_index("photo_id"), "photo_id", pa.array(ids, pa.string())
        )

    def facts_digest(self, row: int) -> str:
        """SHA-256 of what is known of a row without bytes."""
        facts = (self.ids[row], self.places[0][row], self.places[1][row], self._photographers[row])
        return sha256_bytes(repr(facts).encode())

    def told(
        self,
        source: str,
        key: bytes,
        rows: Sequence[int],
        reason: Reason,
        detail: str,
        severity: str,
        input_sha256: str | None,
    ) -> pa.Table:
        """Rows of quarantine for these rows, which share all of it."""
        told = self.table.take(pa.array(rows, pa.int64()))
        content = quarantine.digests(told.drop_columns(["reference", "url"]), key, input_sha256 or "")
        return quarantine.rows(
            source, told["reference"], told["photo_id"], reason, detail, severity, self.origin, content
        )


def _pictured(batch: Candidates, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    if batch.load is None:
        return np.zeros(len(rows), bool)
    return np.ones(len(rows), bool) if batch.pictured is None else batch.pictured[rows]
