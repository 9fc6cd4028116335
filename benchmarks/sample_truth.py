"""Sections 1 and 8 to 11 of sample_planet.py: speed, headings, overhead tiles, planted faults and statistics, against
what was drawn."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sample_calibration as probe
from numpy.typing import NDArray
from PIL import Image
from sample_rows import (
    MAX_HAMMING,
    MODELS,
    RESAMPLES,
    FloatArray,
    Row,
    Workspace,
    above,
    area_row,
    around,
    below,
    mean_row,
    places,
    show,
)
from scipy.spatial import KDTree
from scipy.stats import rankdata

from geoloc.evaluation.measures.bootstrap import (
    interval,
    photographer_clusters,
    resampled_means,
)
from geoloc.land import is_land
from geoloc.photos.consistency import CHECKS, find_inconsistencies
from geoloc.photos.duplicates import near_duplicate_groups
from geoloc.photos.quarantine import read_quarantine
from geoloc.sample import SOURCE, SampleSettings
from geoloc.sample.dirt import DIRT, NOT_KEPT, ODD
from geoloc.sample.geography import cities
from geoloc.sphere import EARTH_RADIUS_KM, distance_km, unit_vectors

WANTED_SPEED = 150.0  # photos a second on two cores
SAME_PLACE_M = 40.0
CANDIDATES = 50
DIRT_RECALL = 0.8  # of what can be found at all


def drawn(folder: Path, *arguments: object) -> dict[str, Any]:
    """Run `sample_calibration.timed_sample` in its own process: drawing processes inherit their parent's imports, and
    this script imports much that `geoloc sample` does not.
    """
    code = (
        "import json, sys; from sample_calibration import timed_sample;"
        "print(json.dumps(timed_sample(sys.argv[1], *json.loads(sys.argv[2]))))"
    )
    reported = subprocess.run(
        [sys.executable, "-c", code, str(folder.resolve()), json.dumps(arguments)],
        check=True,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent,
    )
    made: dict[str, Any] = json.loads(reported.stdout)
    return made


def speed(options: argparse.Namespace, folder: Path) -> list[Row]:
    """Photos per second, without tiles; and whether one process and two write the same bytes."""
    two = drawn(folder / "speed", options.photos, 3, 2)
    rate = two["photos"] / two["photos_s"]
    pictures = two["photos"] + two["tiles"]
    digests = []
    for processes in (1, 2):
        drawn(folder / f"{processes}", 150, 5, processes)
        digests.append(_digest(folder / f"{processes}"))
    same = digests[0] == digests[1]
    wanted = f"at least {WANTED_SPEED:g}"
    rows = [
        Row("photos a second, two processes, their start included", two["photos"], rate, percent=False,
            holds=rate >= WANTED_SPEED, wanted=wanted),
        Row("photos a second, once both have started", two["photos"], two["later"], percent=False),
        Row("tiles a second", two["tiles"], two["tiles"] / max(two["tiles_s"], 1e-9), percent=False),
        Row("pictures in two seconds of processor time", pictures, 2 * pictures / two["processor_s"], percent=False),
        Row("seconds for the whole sample, files written", pictures, two["whole_s"], percent=False),
        Row("files equal, of one process and of two, per cent", digests[0][1], float(same), holds=same, wanted="all"),
    ]  # fmt: skip
    load = f"load of this machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    return show("1. Speed: photos of 128 px through make_sample", rows, (load,))


def _digest(folder: Path) -> tuple[str, int]:
    """Returns a hash of all files' names and bytes, and the number of files."""
    digest, files = hashlib.sha256(), sorted(p for p in folder.rglob("*") if p.is_file())
    for path in files:
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest(), len(files)


def headings(space: Workspace, truth: pd.DataFrame | None, seed: int) -> list[Row]:
    """Are photos from one place more alike if their headings are similar?"""
    table = space.catalog.assign(row=np.arange(len(space.catalog)))
    table = table[table["heading"].notna() & (table["prob_indoor"].fillna(0) < 0.5)]
    if truth is not None:
        outdoor = set(truth.loc[truth["subject"] == "outdoor", "photo_id"])
        table = table[table["photo_id"].isin(outdoor)]
    limit = SAME_PLACE_M / 1000 / EARTH_RADIUS_KM
    pairs = KDTree(unit_vectors(*places(table))).query_pairs(limit, output_type="ndarray")
    one, two = (table.iloc[side] for side in pairs.T)
    apart = probe.turn_between(one["heading"], two["heading"])
    kept = (one["photographer"].to_numpy() != two["photographer"].to_numpy()) & ((apart < 30) | (apart > 90))
    one, two, same = one[kept], two[kept], (apart < 30)[kept]
    spot = [f"{a:.2f} {b:.2f}" for a, b in zip(one["latitude"], one["longitude"], strict=True)]
    metres = 1000 * distance_km(*places(one), *places(two))
    if not same.any() or same.all():
        return show("8. Heading: too few pairs", [Row("pairs", len(same), np.nan, holds=False)])
    rows = [Row("pairs within 30 degrees of each other, per cent", len(same), same.mean())]
    small = probe.grey_thumbnails(space.pictures)
    views = {"grey thumbnails": (small[one["row"]] * small[two["row"]]).sum(axis=1)}
    for model in MODELS:
        a, b = (space.vectors(model, side["photo_id"]) for side in (one, two))
        views[f"[{model}]"] = (a * b).sum(axis=1, dtype=np.float64)
    for most in (SAME_PLACE_M, 20.0, 10.0):  # nearer pairs are fewer and share more of their view: not judged
        at = metres <= most
        owners = (one["photographer"][at], two["photographer"][at], np.array(spot)[at])
        if not same[at].any() or same[at].all():
            continue
        for name, alike in views.items():
            row = area_row(
                f"area under the curve within {most:g} m, {name}", alike[at], same[at], owners, seed
            )
            rows.append(above(row, 0.5) if most == SAME_PLACE_M else row)
    notes = (
        "pairs of two photographers' outdoor photos, by recorded place and heading;",
        "the interval is the widest by either photographer or by the spot",
    )
    return show("8. Heading: pairs within 30 against pairs above 90 degrees", rows, notes)


def overhead(options: argparse.Namespace, folder: Path, seed: int) -> list[Row]:
    """Rank the right tile among tiles of the same city by layout alone."""
    made = options.pairs_folder or folder / "pairs"
    if not made.exists():
        drawn(made, options.pairs, 11, options.processes, True)
    photos, truth = (pd.read_csv(made / name).set_index("photo_id") for name in ("photos.csv", "truth.csv"))
    pairs = pd.read_csv(made / "pairs.csv").set_index("photo_id")
    pairs = pairs.join(photos[["file", "photographer"]]).join(truth[["east_m", "north_m"]])
    files = pd.read_csv(made / "overhead.csv").set_index("photo_id").loc[pairs["overhead_id"], "file"]
    city, heading = pairs["city"].to_numpy(), pairs["heading"].to_numpy(np.float64)
    photo = probe.centred(probe.photo_sectors(_read(made, pairs["file"])), city)
    polar = probe.tile_polar(_read(made, files), probe.PAIRS.metres_per_pixel)
    level = polar.mean(axis=1)
    polar -= (level - probe.centred(level, city))[:, None]
    owner = photographer_clusters(pairs["photographer"])
    tested = np.random.default_rng([seed, 9]).permutation(owner.max() + 1)[owner] % 3 == 0
    a, b = photo[~tested], probe.ahead(polar[~tested], heading[~tested])
    fitted = probe.LayoutProbe.fit(np.concatenate([a, a[:, ::-1]]), np.concatenate([b, b[:, ::-1]]))
    seen = fitted.photo_side(photo)
    where = pairs[["east_m", "north_m"]].to_numpy(np.float64)
    rng = np.random.default_rng([seed, 91])
    better: dict[str, list[float]] = {"right": [], "turned": [], "other photo": [], "other tile": []}
    asked = []
    for row in np.flatnonzero(tested):
        far = np.hypot(*(where - where[row]).T) > 150  # beyond its tile
        others = np.flatnonzero(tested & (city == city[row]) & far)
        if len(others) < CANDIDATES + 1:
            continue
        chosen = rng.choice(others, CANDIDATES + 1, replace=False)
        others, strange = chosen[:-2], chosen[-2:]  # 49 others, and two of other places
        asked.append(row)
        turned = heading[row] + rng.uniform(60, 300)
        for name, query, right, towards in (
            ("right", row, row, heading[row]),
            ("turned", row, row, turned),
            ("other photo", strange[0], row, heading[row]),
            ("other tile", row, strange[1], heading[row]),
        ):
            tiles = polar[np.append(right, others)]
            scores = fitted.score(
                seen[query], fitted.tile_side(probe.ahead(tiles, np.full(len(tiles), towards)))
            )
            better[name].append(float((scores[1:] >= scores[0]).sum()))
    if not asked:
        return show("9. Overhead layout: too few pairs", [Row("queries", 0, np.nan, holds=False)])
    clusters = photographer_clusters(pairs["photographer"].to_numpy()[asked])
    rank = {name: np.array(values) for name, values in better.items()}
    first = {name: (values == 0).astype(np.float64) for name, values in rank.items()}
    titles = {
        "right": "the right heading",
        "turned": "a wrong heading",
        "other photo": "another place's photo, right heading",
        "other tile": "another place's tile, right heading",
    }
    rows = [
        mean_row(f"right tile first, {title}", first[name], clusters, seed) for name, title in titles.items()
    ]
    rows += [
        mean_row(
            f"share of the others ranked before it, {title}", rank[name] / (CANDIDATES - 1), clusters, seed
        )
        for name, title in titles.items()
    ]
    rows += [
        above(mean_row("first: right heading less chance", first["right"] - 1 / CANDIDATES, clusters, seed)),
        *(above(mean_row(f"first: right heading less {titles[name]}", first["right"] - first[name], clusters, seed))
          for name in titles if name != "right"),
    ]  # fmt: skip
    note = f"{int((~tested).sum())} pairs fit the probe; {CANDIDATES} candidates of the same city, more than 150 m off"
    return show(
        "9. Overhead layout: per cent", rows, (note, "chance: 2 per cent first, half of the others before it")
    )


def _read(folder: Path, files: Sequence[str]) -> NDArray[np.uint8]:
    return np.stack([np.asarray(Image.open(folder / file).convert("RGB")) for file in files])


def remade(space: Workspace, options: argparse.Namespace) -> pd.DataFrame | None:
    """Returns the truth of the workspace's photos, with `version` and `row` (of photos.csv, from 1); None if it does
    not match.
    """
    if options.truth:
        truth = pd.read_csv(
            options.truth, dtype={"kind": str}, keep_default_na=False, na_values={"true_latitude": ""}
        )
        photos = pd.read_csv(options.truth.with_name("photos.csv"), dtype=str, keep_default_na=False)
        return truth.assign(version=1, row=np.arange(len(truth)) + 1, photographer=photos["photographer"])
    numbers = space.catalog["photo_id"].str.extract(r"^p(\d+)-(\d+)$").dropna().astype(np.int64)
    made = []
    for version, part in numbers.groupby(0)[1]:
        count = options.sample_photos or int(part.max()) + 1
        records, truth = probe.remake(count, options.seed, SampleSettings(), int(version))
        both = space.catalog.merge(records.drop_duplicates("photo_id"), on="photo_id", suffixes=("", "_made"))
        same = np.isclose(both["latitude"], both["latitude_made"]) & np.isclose(
            both["longitude"], both["longitude_made"]
        )
        if len(both) < 0.95 * len(part) or same.mean() < 0.999:
            print(
                f"   the truth made again does not match version {version}: {same.sum()} of {len(part)} places agree"
            )
            return None
        made.append(truth.assign(version=version, row=np.arange(len(truth)) + 1))
    return pd.concat(made, ignore_index=True)


def dirt(space: Workspace, truth: pd.DataFrame | None, seed: int) -> list[Row]:
    """Recall of ingest and the consistency checks for each kind of dirt, and their precision."""
    if truth is None:
        return show(
            "10. Dirt",
            [Row("the truth of these photos is not known (--truth, --seed)", 0, np.nan, holds=False)],
        )
    quarantine = read_quarantine(space.pool)
    quarantine = quarantine[quarantine["source"] == SOURCE]
    where = quarantine["reference"].str.extract(r"photos(?:-(\d+))?\.csv.*?row (\d+)").astype("Int64")
    key = list(zip(where[0].fillna(1), where[1], strict=True))
    reason: dict[tuple[int, int], dict[str, str]] = {}
    for place, why, severity in zip(key, quarantine["reason"], quarantine["severity"], strict=True):
        reason.setdefault((int(place[0]), int(place[1])), {})[severity] = why
    reported = [reason.get((int(v), int(r)), {}) for v, r in zip(truth["version"], truth["row"], strict=True)]
    kind = truth["kind"].to_numpy(object)
    on_top = np.isin(kind, NOT_KEPT)
    away = np.array(["photo" in t for t in reported])
    bad_time = np.array([t.get("field") == "bad_time" for t in reported])
    kept = truth["photo_id"].isin(set(space.catalog["photo_id"])).to_numpy() & ~on_top
    flags = find_inconsistencies(space.catalog)
    flagged = {check: truth["photo_id"].isin(set(flags.loc[flags["check"] == check, "photo_id"])).to_numpy() & kept
               for check in CHECKS}  # fmt: skip
    any_place = np.any([flagged[c] for c in CHECKS if c != "posted_before_taken"], axis=0)
    no_time = (
        truth["photo_id"]
        .isin(set(space.catalog.loc[space.catalog["taken_at"].isna(), "photo_id"]))
        .to_numpy()
    )
    group = near_duplicate_groups(space.catalog["phash"], space.catalog["sha256"], MAX_HAMMING)
    twin = pd.Series(group, index=space.catalog["photo_id"])
    again = truth["near_duplicate_of"].fillna("").to_numpy(object)
    alike = np.array(
        [
            a != "" and twin.get(a, -1) == twin.get(b, -2)
            for a, b in zip(again, truth["photo_id"], strict=True)
        ]
    )
    own = photographer_clusters(truth["photographer"])
    finders: dict[str, tuple[str, NDArray[np.bool_]]] = {name: ("turned away", away) for name in NOT_KEPT}
    finders |= {
        name: ("checks of places", any_place)
        for name in ("swapped coordinates", "wrong coordinates", "gps noise")
    }
    finders |= {
        "missing time": ("no taken_at", no_time & ~bad_time),
        "impossible time": ("bad_time", bad_time | flagged["posted_before_taken"]),
    }
    finders |= {name: ("kept, as they should be", kept & ~away) for name in ODD}
    finders |= {
        "exact copy": ("not stored twice", ~kept & ~away),
        "near copy": ("near-duplicate of its original", alike),
    }
    rows = []
    for name in DIRT:
        at = kind == name
        if not at.any():
            continue
        title, found = finders[name]
        row = mean_row(f"recall: {name} ({title})", found[at], own[at], seed)
        judged = name in (*NOT_KEPT, *ODD, "missing time", "exact copy")
        if judged:
            row = dataclasses.replace(row, holds=bool(row.estimate == 1.0), wanted="all")
        elif name != "gps noise":
            row = dataclasses.replace(
                row, holds=bool(row.estimate >= DIRT_RECALL), wanted=f"at least {100 * DIRT_RECALL:g} %"
            )
        rows.append(row)
    for check in CHECKS:
        for name in ("swapped coordinates", "wrong coordinates"):
            at = kind == name
            if check != "posted_before_taken" and at.any():
                rows.append(mean_row(f"recall: {name} ({check} alone)", flagged[check][at], own[at], seed))
    burst = (again != "") & (kind == "") & kept
    if burst.any():
        rows.append(
            mean_row("recall: bursts (near-duplicate of their first)", alike[burst], own[burst], seed)
        )
    wrong = np.isin(kind, ("swapped coordinates", "wrong coordinates", "gps noise"))
    for title, found, right in (
        ("turned away by ingest", away, on_top),
        ("bad_time of ingest", bad_time, kind == "impossible time"),
        *(
            (f"check {c}", flagged[c], wrong if c != "posted_before_taken" else kind == "impossible time")
            for c in CHECKS
        ),
        ("all checks of places", any_place, wrong),
    ):
        if found.any():
            row = mean_row(f"precision: {title}", right[found], own[found], seed)
            if not title.startswith("check "):
                row = dataclasses.replace(
                    row, holds=bool(row.estimate >= DIRT_RECALL), wanted=f"at least {100 * DIRT_RECALL:g} %"
                )
            rows.append(row)
        else:
            rows.append(Row(f"precision: {title} (finds nothing)", 0, np.nan))
    notes = ("gps noise of 200 to 500 m is within what streets allow: nothing here can find it",)
    return show("10. Dirt: per cent", rows, notes)


def statistics(
    space: Workspace, truth: pd.DataFrame | None, options: argparse.Namespace, seed: int
) -> list[Row]:
    """The distribution of photos over photographers, subjects, hours and the Earth."""
    if truth is None:
        return show(
            "11. Statistics",
            [Row("the truth of these photos is not known (--truth, --seed)", 0, np.nan, holds=False)],
        )
    settings = SampleSettings()
    good = truth[(truth["version"] == 1) & ~truth["kind"].isin(NOT_KEPT)].reset_index(drop=True)
    own = photographer_clusters(good["photographer"])
    taken = space.catalog.set_index("photo_id")["taken_at"].reindex(good["photo_id"])
    hour = (taken.dt.hour + taken.dt.minute / 60).to_numpy(np.float64)
    up = good["sun_elevation"].to_numpy(np.float64)
    outdoor = (good["subject"] == "outdoor").to_numpy()
    sound = outdoor & ~np.isnan(hour) & (good["kind"] != "impossible time").to_numpy()
    day = sound & (hour >= 9) & (hour < 16)
    night = sound & ((hour < 4) | (hour >= 22))
    by_night = [night] if night.any() else []
    counts = np.bincount(own)
    exponent = probe.zipf_exponent(counts)
    busiest = np.sort(counts)[::-1][: max(1, len(counts) // 10)].sum()
    again = good["near_duplicate_of"].fillna("").to_numpy(object)
    burst = (again != "") & (good["kind"] != "near copy").to_numpy()
    land = is_land(good["true_latitude"], good["true_longitude"])
    rows = [
        Row("Zipf exponent of photos a photographer", len(counts), exponent, percent=False,
            holds=abs(exponent - settings.zipf_exponent) < 0.15, wanted=f"{settings.zipf_exponent:g} ± 0.15"),
        Row("photos by the busiest tenth of photographers", len(counts), busiest / counts.sum()),
        around(mean_row("pictures without a cue", ~outdoor, own, seed), settings.no_cue_share),
        around(mean_row("photos that repeat the one before (bursts)", burst, own, seed), settings.burst_share),
        above(mean_row("sun up, outdoors, local clock 9 to 16", up[day] > 0, own[day], seed), 0.9),
        *(below(mean_row("sun up, outdoors, local clock 22 to 4", up[at] > 0, own[at], seed), 0.2) for at in by_night),
        mean_row("outdoors with the sun above -6 degrees", up[sound] > -6, own[sound], seed),
        above(mean_row("true places on land (quarter-degree raster)", land, own, seed), 0.8),
    ]  # fmt: skip
    table = cities(settings.cities, options.seed).assign(place=lambda t: t["name"] + ", " + t["country_code"])
    weight = table.groupby("place")["weight"].sum()
    here = pd.Index(weight.index).get_indexer(good["city"])
    if (here >= 0).all():
        # Cities are resampled: resampling photographers would make ties and so lower the correlation.
        ranks = [rankdata(weight), rankdata(np.bincount(here, minlength=len(weight)))]
        x, y = (rank - rank.mean() for rank in ranks)
        products = np.stack([x, y, x * y, x * x, y * y], axis=1)
        drawn = resampled_means(products, np.arange(len(x)), resamples=RESAMPLES, seed=seed)
        low, high = interval(_correlation(drawn))
        row = Row(
            "rank correlation of photos and weights of cities (over cities)",
            len(x), float(_correlation(products.mean(axis=0))), float(low), float(high), percent=False,
        )  # fmt: skip
        rows.append(above(row, 0.3))
    else:
        rows.append(
            Row("photos in cities that this code would not draw", int((here < 0).sum()), (here < 0).mean())
        )
    notes = ("the raster has cells of 28 km: a shore may count as sea",)
    return show("11. Statistics", rows, notes)


def _correlation(moments: FloatArray) -> FloatArray:
    """Returns the correlation from means of x, y, xy, xx, yy in the last axis."""
    x, y, xy, xx, yy = np.moveaxis(moments, -1, 0)
    return np.asarray((xy - x * y) / np.sqrt((xx - x * x) * (yy - y * y)))
