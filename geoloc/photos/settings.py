"""Settings of splits and of ingest, separate from the heavy modules that use them."""

from __future__ import annotations

from typing import Literal

from geoloc.settings import Number, Settings, SettingsError, Text, setting

_OWN_NAMES = ("train", "validation", "test", "context", "unused")


class SideSettings(Settings):
    """Size of the validation or the test split."""

    share: Number = setting(
        0.1, minimum=0.0, maximum=0.9, help="expected share of the photographers (or trips); 0: none"
    )
    count: int | None = setting(None, minimum=1, help="number of their photos to use; null: all")
    sample: Literal["representative", "strata"] = setting(
        "representative",
        help="which photos a count takes: representative: each with equal chance; strata: as equal numbers of all "
        "strata as there are, which is another population than that of training (see the column weight of the splits)",
    )


class SplitSettings(Settings):
    """How photos are split: the section `splits` of params.yaml."""

    by: Literal["auto", "photographer", "trip"] = setting(
        "auto",
        help="what is held out: photographers; or the trips of each (photos near in time and place), which says "
        "nothing of other people's photos; auto: photographers, or trips where the own photos are by fewer people "
        "than there are splits, or more than half of them by one",
    )
    trip_hours: Number = setting(
        24.0,
        minimum=0.0,
        when=("by", ("auto", "trip")),
        help="photos of a person at most so far apart in time and trip_km in space are of one trip",
    )
    trip_km: Number = setting(
        100.0, minimum=0.0, maximum=20_000.0, when=("by", ("auto", "trip")), help="see trip_hours"
    )
    validation: SideSettings = setting(
        SideSettings(), help="the split for choosing settings and stopping the training"
    )
    test: SideSettings = setting(SideSettings(), help="the split for measuring")
    context: SideSettings | None = setting(
        None,
        help="a split on which models of time and albums are trained, as the image model has not seen it; taken from "
        "train; null: none",
    )
    external: dict[Text, str] = setting(
        factory=dict, help="external test sets: name of the test set -> source of its photos"
    )
    max_hamming: int = setting(
        6,
        minimum=0,
        maximum=12,
        help="near-duplicates differ in at most this many of the 64 bits of their hashes",
    )
    max_group: int = setting(
        1000,
        minimum=1,
        help="larger groups of near-duplicates (a blank picture, a chain of small changes) are reported and only train",
    )
    exclude_radius_km: Number | None = setting(
        None,
        minimum=0.0,
        maximum=1000.0,
        help="no training photo is this near to a test photo; null: off",
    )
    stratify_level: int = setting(5, minimum=0, maximum=15, help="strata are S2 cells of this level")
    max_share_per_stratum: Number = setting(
        1.0, minimum=0.0001, maximum=1.0, help="largest share of a split that one stratum may have"
    )

    def sides(self) -> dict[str, SideSettings]:
        """The own splits beside train, by name, in the order in which they are chosen."""
        found = {"test": self.test, "validation": self.validation}
        return found if self.context is None else found | {"context": self.context}

    def check(self, key: str) -> None:
        """Raise SettingsError if fields contradict each other."""
        sides = self.sides()
        if sum(side.share for side in sides.values()) >= 1:
            names = [f"{key}.{name}.share" for name in sides]
            raise SettingsError(
                f"{', '.join(names[:-1])} and {names[-1]} must sum to less than 1, "
                f"got {' + '.join(f'{side.share:g}' for side in sides.values())}"
            )
        for name, side in sides.items():
            if side.count is not None and side.share == 0:
                raise SettingsError(
                    f"{key}.{name}.share must be above 0 when {key}.{name}.count is given, got 0"
                )
        for name in self.external:
            if name in _OWN_NAMES or not name:
                raise SettingsError(
                    f"{key}.external: a test needs a name other than {', '.join(_OWN_NAMES)}; got {name!r}"
                )
        sources = list(self.external.values())
        for source in sources:
            if sources.count(source) > 1:
                raise SettingsError(
                    f"{key}.external: source {source!r} must be in one test only, got several"
                )


class SequenceSettings(Settings):
    """How photos are put into sequences (photos/sequences.py)."""

    by: Literal["album", "user"] = setting(
        "album", help="album: a sequence is an album of one photographer; user: all photos of a photographer"
    )
    clock: Literal["auto", "taken", "posted"] = setting(
        "auto",
        help="the time that orders a sequence; taken: the camera's; posted: of posting; auto: that which more of its "
        "photos have, the camera's if equal",
    )
    gap_days: Number = setting(
        30.0,
        minimum=0.0,
        help="a longer time between two photos begins another sequence: another trip, or another camera's clock",
    )


class IngestSettings(Settings):
    """How photos are ingested. The same photos and limits give the same shards, whatever `workers` is."""

    max_pixels: int = setting(
        80_000_000,
        minimum=1,
        maximum=170_000_000,
        help="largest number of pixels; larger pictures are quarantined without decoding",
    )
    max_side: int = setting(
        20_000,
        minimum=1,
        maximum=65_500,
        help="largest side of a picture in pixels; larger pictures are quarantined",
    )
    min_side: int = setting(
        16, minimum=1, help="smallest side of a picture in pixels; icons and thumbnails are quarantined"
    )
    max_file_bytes: int = setting(
        64 * 1024**2, minimum=1, maximum=2**31 - 1, help="largest file; larger ones are quarantined"
    )
    resize_short_side: int | None = setting(
        None, minimum=16, help="shrink larger photos to this short side; null: store photos unchanged"
    )
    shard_bytes: int = setting(256 * 1024**2, minimum=1, help="size at which a shard is closed")
    workers: int = setting(0, minimum=0, counts=False, help="decoding threads; 0: one per core")


class DownloadSettings(Settings):
    """How photos are downloaded. None of it changes a photo."""

    connections: int = setting(64, minimum=1, maximum=1000, help="requests at a time, to all hosts")
    per_host: int = setting(8, minimum=1, maximum=100, help="requests at a time, to one host")
    delay: Number = setting(
        0.0, minimum=0.0, maximum=3600.0, help="seconds between the starts of two requests to one host"
    )
    tries: int = setting(4, minimum=1, maximum=20, help="requests for one photo in a run")
    backoff: Number = setting(
        1.0, minimum=0.0, maximum=600.0, help="seconds before the second try; doubled for each next one"
    )
    longest_wait: Number = setting(
        120.0,
        minimum=0.0,
        maximum=86_400.0,
        help="longest Retry-After in seconds that is waited for; a host that asks for more is left for the next run",
    )
    timeout: Number = setting(60.0, minimum=0.01, maximum=3600.0, help="seconds that one request may take")
    redirects: int = setting(5, minimum=0, maximum=20, help="redirects that are followed for one photo")
    redirect_hosts: tuple[str, ...] = setting(
        (), help="hosts to which the hosts of the table may redirect; without, each to itself only"
    )
    private: Literal["named", "always", "never"] = setting(
        "named",
        help="addresses of this machine and of private networks are asked only where the table writes them so"
        " (localhost, 10.0.0.7), also where a public name leads there, or never",
    )
    host_failures: int = setting(
        20,
        minimum=1,
        help="photos of a host in a row that got no answer, after which it is left for the next run",
    )
    user_agent: str = setting(
        "geoloc/0.1 (photo downloads)", help="the User-Agent; name your project and how to reach you"
    )
