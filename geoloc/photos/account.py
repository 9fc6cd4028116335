"""The account of an ingest: what became of every input."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class IngestSummary:
    """Counts of added, present and quarantined inputs. Also the argument of the progress callback, so far.

    quarantined: inputs turned away, by reason. fields_dropped: photos kept without a damaged field, by reason. labels:
    photos of the pool whose bytes came with another id or label as well, by reason. encoded_again: photos that could
    not be stored bit for bit, by why. taken_down: inputs that were taken down earlier, or whose photographer was;
    nothing is kept of them but this count. notes: what else there is to say, with its count.
    """

    source: str
    added: int = 0
    already_present: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    fields_dropped: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    encoded_again: dict[str, int] = field(default_factory=dict)
    taken_down: int = 0
    notes: dict[str, int] = field(default_factory=dict)

    @property
    def seen(self) -> int:
        """Inputs that are accounted for."""
        return self.added + self.already_present + sum(self.quarantined.values()) + self.taken_down

    def __str__(self) -> str:
        lines = [f"{self.source}: {self.added} added, {self.already_present} already present,"
                 f" {sum(self.quarantined.values())} quarantined"]  # fmt: skip
        if self.taken_down:
            lines[0] += f", {self.taken_down} not taken: they were taken down earlier"
        for title, counts in (
            ("quarantined", self.quarantined),
            ("kept without a field", self.fields_dropped),
            ("both labels recorded", self.labels),
            ("encoded again", self.encoded_again),
            ("note", self.notes),
        ):
            lines += [f"  {title}: {name} {count}" for name, count in sorted(counts.items())]
        return "\n".join(lines)
