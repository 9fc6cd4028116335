"""Sections 2 to 7 of sample_planet.py: what shortcuts answer, more references, finer cells, leaks, times of posting and
albums."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import sample_calibration as probe
import torch
from numpy.typing import NDArray
from sample_rows import (
    MAX_HAMMING,
    MODELS,
    RESAMPLES,
    FloatArray,
    Row,
    Workspace,
    above,
    below,
    hits_of,
    mean_row,
    places,
    ratio_row,
    show,
)
from scipy.spatial import KDTree

from geoloc.evaluation.evaluate import evaluate
from geoloc.evaluation.measures.accuracy import within
from geoloc.evaluation.measures.baselines import share_within
from geoloc.evaluation.measures.bootstrap import (
    interval,
    photographer_clusters,
    resampled_medians,
)
from geoloc.evaluation.settings import EvaluationSettings
from geoloc.localizers.base import Answers
from geoloc.localizers.by_neighbour import DensityLocalizer, NearestLocalizer
from geoloc.partitions import S2Settings, load_partition, partition_of
from geoloc.photos.duplicates import near_duplicate_groups
from geoloc.retrieval.index import ReferenceIndex
from geoloc.settings import replace
from geoloc.sphere import LEVELS_KM, distance_km

LEVELS = list(LEVELS_KM)
CITY, CONTINENT = LEVELS.index("city"), LEVELS.index("continent")
MOST_CITIES = (
    0.05  # "almost no cities": at city level, mean colour is at most this far above a random reference
)
PERMUTATIONS = 500
DRAWS = 5  # random parts of the photographers that are averaged


def trivial(space: Workspace, seed: int) -> list[Row]:
    """Mean colour compared with the pipeline's models, and all with baselines and the ceiling."""
    queries, train = space.queries, space.photos("train")
    colours = space.pictures.reshape(len(space.pictures), -1, 3).mean(axis=1)
    known = colours[train["row"]]
    spread = known.std(axis=0)
    nearest = KDTree(known / spread).query(colours[queries["row"]] / spread)[1]
    answers = {
        "mean colour NN": _answers(
            train["latitude"].to_numpy()[nearest], train["longitude"].to_numpy()[nearest]
        )
    }
    chosen = [
        m for m in space.evaluation.methods if m.startswith("[L]") and (m.endswith("C") or m.endswith("]NN"))
    ]
    for method in [*chosen, *(m for m in space.evaluation.methods if m == "[backbone]NN")]:
        reported = space.evaluation.per_photo[space.evaluation.per_photo["method"] == method]
        answers[method] = _answers(reported["latitude"].to_numpy(), reported["longitude"].to_numpy())
    partition = load_partition(space.build / "partition" / "fine")
    cell = partition.assign(*places(queries))
    inside = np.where(cell[:, None] >= 0, partition.centroids()[cell], np.nan)
    answers["ceiling of the partition"] = _answers(inside[:, 0], inside[:, 1])
    found = evaluate(
        answers, queries, space.references, {partition.kind: partition},
        replace(EvaluationSettings(), resamples=RESAMPLES), seed=seed,
    )  # fmt: skip
    table, compared = found.accuracy, found.comparisons

    def at(method: str, level: str, frame: pd.DataFrame = table, column: str = "method") -> Row:
        r = frame[(frame[column] == method) & (frame["level"] == level)].iloc[0]
        return Row(f"{method}, {level}", int(r["n"]), r["accuracy"], r["low"], r["high"])

    def less(one: str, other: str, level: str) -> Row:
        r = compared[
            (compared["method"] == one) & (compared["other"] == other) & (compared["level"] == level)
        ]
        if len(r):
            sign, r = 1, r.iloc[0]
        else:
            sign = -1
            r = compared[
                (compared["method"] == other) & (compared["other"] == one) & (compared["level"] == level)
            ].iloc[0]
        low, high = sorted((sign * r["low"], sign * r["high"]))
        return Row(f"{one} less {other}, {level}", int(r["n"]), sign * r["difference"], low, high)

    everyone = _colour_among_others(space, colours, seed)
    colour, best = "mean colour NN", next((m for m in chosen if m.endswith("]NN")), chosen[0])
    rows = [at(method, level) for method in answers for level in LEVELS]
    rows += [
        at(base, level, found.baselines, "baseline")
        for base in ("random reference", "best constant point")
        for level in LEVELS
    ]
    rows += [
        above(less(colour, "random reference", "continent")),
        below(less(colour, "random reference", "city"), MOST_CITIES),
        *(above(less(m, colour, level)) for m in chosen for level in ("city", "country", "continent")),
        *(
            less(m, "best constant point", level)
            for m in chosen
            for level in ("city", "country", "continent")
        ),
        *(above(less("ceiling of the partition", best, level)) for level in LEVELS),
    ]
    notes = (
        f"mean colour needs no training: its last rows have all {len(space.catalog):,} photos as queries, among other",
        "photographers' photos, against a random one of these",
    )
    return show("2. Nothing is trivial: accuracy of the test photos, per cent", rows + everyone, notes)


def _colour_among_others(space: Workspace, colours: FloatArray, seed: int) -> list[Row]:
    """Each photo's nearest by mean colour among other photographers' photos, minus a random one of these."""
    features = colours / colours.std(axis=0)
    # Copies by others are left out, as in splits: they are no evidence about colour.
    alike = near_duplicate_groups(space.catalog["phash"], space.catalog["sha256"], MAX_HAMMING)
    latitude, longitude = places(space.catalog)
    hits = np.zeros((len(features), len(LEVELS)))
    for start in range(0, len(features), 512):
        part = slice(start, start + 512)
        apart = ((features[part, None] - features[None]) ** 2).sum(axis=-1)
        apart[space.own[part, None] == space.own[None]] = np.inf
        apart[alike[part, None] == alike[None]] = np.inf
        to = apart.argmin(axis=1)
        hits[part] = within(distance_km(latitude[part], longitude[part], latitude[to], longitude[to]))
    by_chance = share_within(latitude, longitude, latitude, longitude, own=(space.own, space.own))
    rows = [
        mean_row(f"mean colour NN among others, {level}", hits[:, i], space.own, seed)
        for i, level in enumerate(LEVELS)
    ]
    continent, city = (
        mean_row(f"the same less a random photo, {LEVELS[i]}", (hits - by_chance)[:, i], space.own, seed)
        for i in (CONTINENT, CITY)
    )
    return [*rows, above(continent), below(city, MOST_CITIES)]


def _answers(latitude: FloatArray, longitude: FloatArray) -> Answers:
    return Answers(latitude=latitude, longitude=longitude, confidence=np.zeros(len(latitude), np.float32))


def more_references(space: Workspace, seed: int) -> list[Row]:
    """[L]NN and [L]kNN with parts of the reference photographers."""
    queries, references = space.queries, space.references
    vectors = space.vectors("L", queries["photo_id"])
    own = photographer_clusters(queries["photographer"])
    names = np.unique(references["photographer"].astype(str))
    parts = (1 / 8, 1 / 4, 1 / 2, 1.0)
    hits = {part: np.zeros((2, len(queries), len(LEVELS))) for part in parts}
    for draw in range(DRAWS):
        order = np.random.default_rng([seed, 3, draw]).permutation(names)
        for part in parts:
            if part == 1.0 and draw:
                hits[part] *= (draw + 1) / draw  # the same photographers in every draw
                continue
            taken = references[
                references["photographer"].astype(str).isin(order[: max(1, round(part * len(order)))])
            ]
            index = ReferenceIndex.build(space.embeddings["L"], taken, seed=seed)
            for row, localizer in enumerate((NearestLocalizer(index), DensityLocalizer(index, sigma=4.0))):
                hits[part][row] += hits_of(localizer.locate(vectors), queries)
    rows = []
    for number, method in enumerate(("[L]NN", "[L]kNN σ=4")):
        rows += [
            mean_row(
                f"{method}, {part:g} of the photographers, {level}",
                hits[part][number][:, i] / DRAWS,
                own,
                seed,
            )
            for level, i in (("city", CITY), ("continent", CONTINENT))
            for part in parts
        ]
    for number, method in enumerate(("[L]NN", "[L]kNN σ=4")):
        more = (hits[1.0] - hits[1 / 8])[number] / DRAWS
        rows += [
            above(mean_row(f"{method}: all less 1/8, {level}", more[:, i], own, seed))
            for i, level in enumerate(LEVELS)
        ]
    notes = (
        f"nested parts, mean of {DRAWS} draws; the model is the same, trained on all training photographers",
    )
    return show("3. More reference photos help: accuracy, per cent", rows, notes)


def finer_cells(space: Workspace, seed: int) -> list[Row]:
    """Linear softmax classifiers on stored embeddings, over a coarse, a middle and a fine partition."""
    train, validation, queries = space.photos("train"), space.photos("validation"), space.queries
    own = photographer_clusters(queries["photographer"])
    # A cell has at most the number of training photos divided by these.
    sizes = {"coarse": 5, "middle": 30, "fine": 180}
    partitions = {}
    for name, cells in sizes.items():
        limits = S2Settings(max_photos=max(2, len(train) // cells), min_photos=2)
        partitions[name] = partition_of(limits).fit(*places(train))
    rows, judged = [], []
    for model in MODELS:
        inputs = [space.vectors(model, part["photo_id"]) for part in (train, validation, queries)]
        hits = {}
        for name, partition in partitions.items():
            reported = _softmax(
                inputs,
                partition.assign(*places(train)),
                partition.assign(*places(validation)),
                partition.cell_count,
            )
            answer = partition.centroids()[reported]
            hits[name] = hits_of(_answers(answer[:, 0], answer[:, 1]), queries)
            rows += [
                mean_row(
                    f"[{model}] {name}, {partition.cell_count} cells, {level}", hits[name][:, i], own, seed
                )
                for i, level in enumerate(LEVELS)
            ]
        for i, level in enumerate(LEVELS):
            row = mean_row(
                f"[{model}] fine less coarse, {level}", (hits["fine"] - hits["coarse"])[:, i], own, seed
            )
            if level in ("street", "city"):
                row = above(row)
            elif level == "continent":
                row = dataclasses.replace(row, holds=bool(row.high < 0), wanted="below 0")
            judged.append(row)
    for name, partition in partitions.items():
        best = partition.ceiling(*places(queries))
        rows += [Row(f"ceiling, {name}, {level}", len(queries), best[level]) for level in LEVELS]
    notes = ("[L] has seen the training photos with labels of its own partition; [backbone] has seen none",)
    return show("4. Finer cells: accuracy of linear classifiers, per cent", rows + judged, notes)


def _softmax(
    inputs: Sequence[NDArray[np.float32]], labels: NDArray[np.int32], check: NDArray[np.int32], cells: int
) -> NDArray[np.int64]:
    """Returns the most probable cell of each query, by multinomial regression on 128 principal components. The weight
    decay is the best one on the validation photos.
    """
    middle = inputs[0].mean(axis=0)
    turned = np.linalg.svd(inputs[0] - middle, full_matrices=False)[2][:128].T
    scale = ((inputs[0] - middle) @ turned).std(axis=0).mean()  # one scale: whitening would amplify noise
    x, other, query = (torch.from_numpy((part - middle) @ turned / scale) for part in inputs)
    y, seen = torch.from_numpy(labels.astype(np.int64)), torch.from_numpy(labels >= 0)
    checked = torch.from_numpy(check >= 0)
    entropy = torch.nn.functional.cross_entropy
    best: tuple[float, NDArray[np.int64]] = (np.inf, np.zeros(len(query), np.int64))
    weight = torch.zeros((x.shape[1], cells), requires_grad=True)
    bias = torch.zeros(cells, requires_grad=True)
    for decay in (1e-1, 1e-2, 1e-3, 1e-4):  # each starts from the result of the stronger one
        optimiser = torch.optim.LBFGS([weight, bias], max_iter=25, line_search_fn="strong_wolfe")

        def loss(
            weight: Any = weight, bias: Any = bias, decay: float = decay, optimiser: Any = optimiser
        ) -> Any:
            optimiser.zero_grad()
            value = entropy(x[seen] @ weight + bias, y[seen]) + decay * (weight * weight).sum() / 2
            value.backward()
            return value

        optimiser.step(loss)
        with torch.no_grad():
            target = torch.from_numpy(check.astype(np.int64))[checked]
            left = float(entropy(other[checked] @ weight + bias, target))
            if left < best[0]:
                best = left, (query @ weight + bias).argmax(dim=1).numpy()
    return best[1]


def leaks(space: Workspace, seed: int) -> list[Row]:
    """Each photo's nearest neighbour among all other photos, and among other photographers' photos."""
    ids = space.embeddings["L"].photo_ids
    rows_of = space.catalog[space.catalog["photo_id"].isin(set(ids))].reset_index(drop=True)
    own = photographer_clusters(rows_of["photographer"])
    rows, judged = [], []
    for model in MODELS:
        index = ReferenceIndex.build(space.embeddings[model], rows_of, seed=seed)
        localizer = NearestLocalizer(index, alternatives=1)
        vectors = space.vectors(model, rows_of["photo_id"])
        names = {"exclude_photos": rows_of["photo_id"].to_numpy(object)}
        leaking = hits_of(localizer.locate(vectors, **names), rows_of)
        names["exclude_photographers"] = rows_of["photographer"].to_numpy(object)
        honest = hits_of(localizer.locate(vectors, **names), rows_of)
        for title, hits in (("all other photos", leaking), ("other photographers' photos only", honest)):
            rows += [
                mean_row(f"[{model}]NN among {title}, {level}", hits[:, i], own, seed)
                for i, level in enumerate(LEVELS)
            ]
        ratio = ratio_row(
            f"[{model}]NN: ratio of the two, city", leaking[:, CITY], honest[:, CITY], own, seed
        )
        judged.append(above(ratio, 1.0))
    notes = ("on the real Im2GPS3k, with an ImageNet backbone: 9.44 against 3.37 per cent, 2.8 times",)
    return show("5. Leaking photographers: accuracy, per cent, each photo a query", rows + judged, notes)


def posting_times(space: Workspace, seed: int) -> list[Row]:
    """How well the UTC hour of posting predicts the longitude."""
    rows_of = space.catalog[space.catalog["posted_at"].notna()].reset_index(drop=True)
    own = photographer_clusters(rows_of["photographer"])
    hour = rows_of["posted_at"].dt.hour.to_numpy(np.int64)
    longitude = rows_of["longitude"].to_numpy(np.float64)
    band = np.floor((longitude + 180) / 15).astype(np.int64) % 24
    rng = np.random.default_rng([seed, 6])
    real = probe.mutual_information(hour, band)
    at_home = np.argsort(own, kind="stable")
    by_chance = [
        probe.mutual_information(hour[probe.blocks_permuted(own, rng)], band[at_home])
        for _ in range(PERMUTATIONS)
    ]
    most = float(np.quantile(by_chance, 0.99))
    # Five folds by photographer: the probe never sees the habits of the photographers it is tested on.
    fold = np.random.default_rng([seed, 61]).permutation(own.max() + 1)[own] % 5
    reported, constant = np.zeros(len(hour)), np.zeros(len(hour))
    for part in range(5):
        known, asked = fold != part, fold == part
        reported[asked] = probe.longitude_by_hour(hour[known], longitude[known])[hour[asked]]
        grid = np.arange(-180.0, 180.0, 15.0)
        constant[asked] = grid[np.argmin(probe.turn_between(longitude[known][:, None], grid).mean(axis=0))]
    by_hour, by_none = probe.turn_between(reported, longitude), probe.turn_between(constant, longitude)
    rows = [
        Row("mutual information of hour and 15 degrees of longitude, bits", len(hour), real, percent=False,
            holds=real > most, wanted=f"above {most:.3g}, 99 % of permuted photographers"),
        Row("the same, photographers permuted, mean", PERMUTATIONS, float(np.mean(by_chance)), percent=False),
        mean_row("degrees off, best constant longitude", by_none, own, seed, percent=False),
        mean_row("degrees off, longitude by hour of posting", by_hour, own, seed, percent=False),
        above(mean_row("degrees gained by the hour", by_none - by_hour, own, seed, percent=False)),
    ]  # fmt: skip
    return show("6. The time of posting predicts the longitude", rows)


def albums(space: Workspace, seed: int) -> list[Row]:
    """How near the neighbour in the album is, and how much it helps."""
    table = space.catalog.assign(row=np.arange(len(space.catalog)), time=space.catalog["taken_at"])
    table["time"] = table["time"].fillna(space.catalog["posted_at"])
    table = table[table["album"].notna() & (table["album"] != "") & table["time"].notna()]
    table = table.sort_values(["photographer", "album", "time", "photo_id"], kind="stable").reset_index(
        drop=True
    )
    pairs = []
    for step in (1, -1):
        other = table.shift(step)
        # At least a minute apart: the next photo of a burst is the same picture, which needs no album.
        together = (other["album"] == table["album"]) & (other["photographer"] == table["photographer"])
        together &= (other["time"] - table["time"]).abs() > pd.Timedelta(minutes=1)
        pairs.append(pd.DataFrame({"row": table["row"], "other": other["row"], "kept": together}))
    links = pd.concat(pairs)
    links = links[links["kept"]].astype({"other": np.int64})
    place = {name: space.catalog[name].to_numpy(np.float64) for name in ("latitude", "longitude")}
    queries = space.queries
    own = photographer_clusters(queries["photographer"])
    first = links.drop_duplicates("row").set_index("row")["other"].reindex(queries["row"]).to_numpy()
    has = ~np.isnan(first)
    asked = queries[has].reset_index(drop=True)
    to = first[has].astype(np.int64)
    km = distance_km(*places(asked), place["latitude"][to], place["longitude"][to])
    near = within(km).astype(np.float64)
    random = share_within(*places(asked), *places(queries))
    clusters = photographer_clusters(asked["photographer"])
    other = np.random.default_rng([seed, 7]).permutation(len(queries))[: len(asked)]
    random_km = distance_km(*places(asked), *(values[other] for values in places(queries)))
    rows = []
    for title, distance in (
        ("the neighbour in the album", km),
        ("a random photo of the test set", random_km),
    ):
        low, high = interval(resampled_medians(distance, clusters, resamples=RESAMPLES, seed=seed))
        rows.append(
            Row(
                f"median km to {title}",
                len(km),
                float(np.median(distance)),
                float(low),
                float(high),
                percent=False,
            )
        )
    for i, km_of in enumerate(LEVELS_KM.values()):
        title = f"within {km_of:g} km: neighbour less random photo"
        rows.append(above(mean_row(title, near[:, i] - random[:, i], clusters, seed)))
    index = ReferenceIndex.build(space.embeddings["L"], space.references, seed=seed)
    judged, shown = [], []
    for model in MODELS:
        if model != "L":
            index = ReferenceIndex.build(space.embeddings[model], space.references, seed=seed)
        positions = space.embeddings[model].positions(space.catalog["photo_id"])
        vectors = space.embeddings[model].vectors.astype(np.float32)
        mean = vectors[positions[queries["row"]]].copy()
        link = links[links["row"].isin(set(queries["row"])) & (positions[links["other"]] >= 0)]
        slot = pd.Index(queries["row"]).get_indexer(link["row"])
        np.add.at(mean, slot, vectors[positions[link["other"]]])
        mean /= np.linalg.norm(mean, axis=1, keepdims=True)
        localizer = NearestLocalizer(index, alternatives=1)
        alone = hits_of(localizer.locate(vectors[positions[queries["row"]]]), queries)
        together = hits_of(localizer.locate(mean), queries)
        shown += _whole_albums(space, model, queries, alone, own, seed)
        for i, level in enumerate(LEVELS):
            rows.append(
                mean_row(f"[{model}]NN of the photo and its neighbours, {level}", together[:, i], own, seed)
            )
            row = mean_row(
                f"[{model}]NN: with neighbours less alone, {level}", (together - alone)[:, i], own, seed
            )
            judged.append(above(row) if model == "L" and level in ("city", "country", "continent") else row)
    notes = (
        "the whole album: embeddings less the references' mean, which all share, averaged over all of the album",
    )
    return show("7. Album neighbours", rows + judged + shown, notes)


def _whole_albums(
    space: Workspace, model: str, queries: pd.DataFrame, alone: FloatArray, own: NDArray[np.int64], seed: int
) -> list[Row]:
    """Another probe, not judged: nearest neighbour of the mean of centred embeddings of the whole album."""
    known = space.vectors(model, space.references["photo_id"])
    middle = known.mean(axis=0)
    held = space.catalog[space.embeddings[model].positions(space.catalog["photo_id"]) >= 0]
    centred = space.vectors(model, held["photo_id"]) - middle
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    named = held["album"].notna() & (held["album"] != "")
    album = held["photographer"].astype(str) + " " + held["album"].astype(str)
    code, names = pd.factorize(album.where(named, held["photo_id"]))
    sums = np.zeros((len(names), centred.shape[1]), np.float32)
    np.add.at(sums, code, centred)
    asked = code[pd.Index(held["photo_id"]).get_indexer(queries["photo_id"])]
    nearest = (
        sums[asked] @ ((known - middle) / np.linalg.norm(known - middle, axis=1, keepdims=True)).T
    ).argmax(axis=1)
    latitude, longitude = (values[nearest] for values in places(space.references))
    gained = hits_of(_answers(latitude, longitude), queries) - alone
    return [
        mean_row(f"[{model}]NN: whole album, centred, less alone, {level}", gained[:, i], own, seed)
        for i, level in enumerate(LEVELS)
    ]
