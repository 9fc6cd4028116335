"""By overhead tiles, for `geoloc locate --overhead` and `geoloc index overhead`: an area as an index, and where on it a
photo was taken and where it looks."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoloc.files import DamagedFile, atomic_folder, read_parquet, write_json
from geoloc.photos.pair_splits import OVERHEAD, PICTURE_COLUMNS
from geoloc.photos.rasters import Raster
from geoloc.places import nearest_places
from geoloc.reports.answer_map import answer_map_html
from geoloc.sphere import destination
from orchestration.assets.inputs import read_pair_table
from orchestration.errors import UsageError
from orchestration.lineage.build import Build
from orchestration.lineage.verify import out_of_date, require_recorded
from orchestration.locate.locate import NAMED
from orchestration.locate.located import Alternative, Located
from orchestration.locate.photos import read_photo
from orchestration.locate.question import Question
from orchestration.plan.chain import MODEL_FILE, PICTURES_FILE
from orchestration.workspace import WorkspaceError

if TYPE_CHECKING:
    from geoloc.localizers.by_overhead.embedding import CrossViewEmbedder
    from geoloc.localizers.by_overhead.localizer import OverheadAnswers
    from geoloc.partitions.base import Partition

Say = Callable[[str], None]
AREA_FILE = "area.json"
"""In the folder of an index that `geoloc index overhead` made: of which raster, tiles and recipe."""
MODEL, INDEX = "cross_view_model", "overhead_index"
CLASSES = ("partition", "classifier")
METHOD = "[overhead]"
_OTHER_SIZE = 1.25  # tiles so much larger or smaller than those of training are told
_WEDGE_KM = 0.1  # of the heading on the map


@dataclass(frozen=True)
class LocatedOverhead(Located):
    """The answer for a photo by overhead tiles. `heading`: degrees clockwise from true north; `heading_error` its
    median error on validation photos; None if the network tells none. Half of the probability is within `radius_km`.
    `confidence` is the probability of the best tile, given that the photo is in the area."""

    heading: float | None = None
    heading_error: float | None = None
    radius_km: float | None = None

    def __str__(self) -> str:
        text = super().__str__()
        if not self.answered:
            return text
        lines = text.splitlines()
        told = f"  half of the probability is within {_metres(self.radius_km or 0.0)}"
        if self.heading is not None:
            error = "" if self.heading_error is None else f" ± {self.heading_error:.0f}°"
            told += f"; it looks towards {round(self.heading) % 360}°{error} from north"
        return "\n".join([*lines[:2], told, *lines[2:]])


def locate_overhead(
    build: Build,
    index_folder: Path,
    photos: Sequence[Path],
    alternatives: int,
    say: Say,
    *,
    joint: bool = False,
) -> list[LocatedOverhead]:
    """Locate photo files on the tiles of an overhead index, by the recipe's cross-view network; `joint`: only on those
    where its photo classifier thinks it likely, with both probabilities together.

    A photo that is outside of the index's area, or no readable photo, gets an answer without coordinates, whose `error`
    says so. Raises WorkspaceError where the recipe has no such network, it is not what its record says, or the index is
    of another network or not calibrated; UsageError if there is no index, DamagedFile where its files do not fit.
    """
    _require(build, (MODEL, *(CLASSES if joint else ())), say)
    read = [read_photo(photo) for photo in photos]
    pixels = [one.pixels for one in read if one.pixels is not None]
    if bad := [f"{one.name}: {one.error}" for one in read if one.pixels is None]:
        more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        say(
            f"{len(bad)} of {len(photos)} photo{'s' * (len(photos) > 1)} cannot be read: {'; '.join(bad[:NAMED])}{more}"
        )
    if not pixels:
        return [LocatedOverhead(one.name, "", error=one.error) for one in read]
    # Only now: torch takes seconds to import, and photos and build may have been refused.
    from geoloc.localizers.by_overhead.index import FACTS_FILE, VECTORS_FILE, OverheadIndex
    from geoloc.localizers.by_overhead.localizer import locate_by_overhead

    if not (index_folder / FACTS_FILE).is_file():
        raise UsageError(
            f"--overhead must be the folder of an overhead index, which {index_folder} is not; make one with: geoloc "
            f"index overhead --raster FILE --recipe {build.recipe} --output {index_folder}"
        )
    index, embedder = OverheadIndex.open(index_folder), _embedder(build)
    if index.model != embedder.model:
        raise WorkspaceError(
            f"the index {index_folder} was made with another network ({index.model[:12]}) than {build.recipe} has now "
            f"({embedder.model[:12]}): make it again with geoloc index overhead"
        )
    if index.calibration is None:
        raise WorkspaceError(
            f"the index {index_folder} has no calibration, without which a photo outside of its area cannot be told: "
            "make it again with geoloc index overhead"
        )
    embedded, method = embedder.photos(pixels), METHOD
    if embedded.shape[1] != index.vectors.shape[2]:
        raise DamagedFile(
            index_folder / VECTORS_FILE,
            f"it has embeddings of {index.vectors.shape[2]} dimensions, and the network of {build.recipe} gives "
            f"{embedded.shape[1]}",
        )
    if joint:
        from geoloc.localizers.by_overhead.joint import locate_jointly

        likely = _likely(build, pixels, say)
        method = f"{METHOD} in {likely.name}"
        found = locate_jointly(
            index, embedder, embedded, likely.probabilities, likely.partition, alternatives
        )
    else:
        found = locate_by_overhead(index, embedder, embedded, alternatives)
    if (np.isfinite(embedded).all(axis=1) & ~np.isfinite(found.distance)).any():
        raise DamagedFile(index_folder / VECTORS_FILE, "its embeddings are NaN")
    places = index.tiles[["latitude", "longitude"]].to_numpy(np.float64)
    made = iter([_located(found, row, places, index.calibration.reach, joint) for row in range(len(pixels))])
    return [
        LocatedOverhead(one.name, method, error=one.error)
        if one.pixels is None
        else replace(next(made), photo=one.name, method=method)
        for one in read
    ]


def overhead_map(places: Sequence[LocatedOverhead]) -> str:
    """One offline HTML page with the answers on the world map; a wedge shows where a photo looks."""
    return answer_map_html(
        [
            place.to_dict()
            | {
                "outline": _wedge(place),
                "nearby_lines": str(place).splitlines()[2:3] if place.answered else [],
            }
            for place in places
        ]
    )


def index_area(
    build: Build,
    raster: Raster,
    output: Path,
    *,
    metres: float | None,
    pixels: int,
    step: float | None,
    least: float,
    progress: Callable[[int, int], None],
    say: Say,
) -> dict[str, Any]:
    """Write the index of an area to the folder `output`; returns facts about it.

    metres, step None: as the tiles of the recipe's pairs, and half of that. Raises WorkspaceError as `locate_overhead`,
    UsageError if the size of the tiles is unknown, and RasterError if no tile can be cut.
    """
    _require(build, (MODEL, INDEX), say)
    trained = _tile_metres(build)
    if metres is None:
        if trained is None:
            raise UsageError(
                f"--metres must be given: the pairs of {build.recipe} do not tell the size of their tiles"
            )
        metres = trained
    elif trained is not None and not 1 / _OTHER_SIZE <= metres / trained <= _OTHER_SIZE:
        say(f"tiles of {metres:g} m are of another size than those of {build.recipe}'s pairs, {trained:g} m")
    # Only now: torch takes seconds to import.
    from geoloc.localizers.by_overhead.calibration import Calibration
    from geoloc.localizers.by_overhead.index import CALIBRATION_FILE, make_index
    from geoloc.localizers.by_overhead.tiling import Tiling, tile_raster

    if not (build.folder(INDEX) / CALIBRATION_FILE).is_file():
        raise WorkspaceError(
            f"{build.name(INDEX)} has no calibration, as no validation pair could be read, so an index cannot tell "
            "photos outside of its area"
        )
    calibration, embedder = Calibration.load(build.folder(INDEX) / CALIBRATION_FILE), _embedder(build)
    assert build.settings.cross_view is not None
    search = build.settings.cross_view.search
    tiling = Tiling(metres, pixels, metres / 2 if step is None else step, least, search.batch_size)
    work = output.absolute().with_name(f".{output.absolute().name}.parts")
    made = tile_raster(
        raster,
        tiling,
        lambda tiles: embedder.tiles(tiles, search.rotations),
        f"{embedder.model} {search.rotations}",
        work,
        progress,
    )
    index = make_index(embedder, made.tiles, made.vectors, search, calibration)
    facts = {
        "raster": raster.name,
        "recipe": build.recipe,
        "model": index.model,
        "tiles": len(index),
        "metres": metres,
        "step": tiling.step,
        "pixels": pixels,
        "on_edge": made.on_edge,
        "outside": made.outside,
    }
    with atomic_folder(output) as folder:
        index.write(folder)
        write_json(folder / AREA_FILE, facts)
    shutil.rmtree(work)
    return facts


def _require(build: Build, stages: tuple[str, ...], say: Say) -> None:
    """Raise WorkspaceError unless the recipe has these outputs and they are what their records say."""
    settings = build.settings.cross_view
    if settings is None:
        raise WorkspaceError(
            f"overhead tiles need a recipe with a section cross_view, which {build.recipe} does not have"
        )
    if settings.kind != "embedding":
        raise WorkspaceError(
            f"overhead tiles need a network with cross_view.kind embedding; {build.recipe} has {settings.kind}, which "
            "scores one pair at a time"
        )
    if missing := [name for name in stages if not build.folder(name).is_dir()]:
        raise WorkspaceError(
            f"{build.recipe} has no {', '.join(missing)} yet; build it with: {build.command()}"
        )
    records = require_recorded(build, stages)
    if old := out_of_date(build, records):
        why = "; ".join(f"{name}: {', '.join(reasons)}" for name, reasons in old.items())
        say(
            f"{build.recipe} is out of date ({why}) and answers as it was built; renew it with: {build.command()}"
        )


def _embedder(build: Build) -> CrossViewEmbedder:
    from geoloc.localizers.by_overhead.embedding import CrossViewEmbedder

    assert build.settings.cross_view is not None
    return CrossViewEmbedder.open(
        build.folder(MODEL) / MODEL_FILE, build.settings.cross_view.search.batch_size
    )


def _tile_metres(build: Build) -> float | None:
    """The median width on the ground of the tiles of a recipe's pairs; None if it is unknown."""
    folder = build.folder("pairs")
    if not (folder / PICTURES_FILE).is_file():
        return None
    pictures = read_parquet(folder / PICTURES_FILE, PICTURE_COLUMNS)
    width = pictures[pictures["view"] == OVERHEAD].set_index("photo_id")["width"].astype(np.float64)
    pairs = read_pair_table(folder)
    metres = pairs["metres_per_pixel"] * pairs["overhead_id"].map(width)
    return None if metres.isna().all() else round(float(metres.median()), 3)


@dataclass(frozen=True)
class _Likely:
    """The classifier's probabilities float32 [N, C] of the cells of its main partition, and its name in tables."""

    name: str
    probabilities: NDArray[np.float32]
    partition: Partition


def _likely(build: Build, pixels: Sequence[NDArray[np.uint8]], say: Say) -> _Likely:
    """Where the recipe's photo classifier thinks N photos likely."""
    from orchestration.locate.by_class import ByClass

    classes = ByClass.open(build, Question(), say)
    main = classes.method.partitions[0]
    return _Likely(classes.name, classes.probabilities(pixels)[main], classes.partitions[main])


def _located(
    found: OverheadAnswers, row: int, places: NDArray[np.float64], reach: float, joint: bool
) -> LocatedOverhead:
    """The answer for one readable photo, as yet without its name and method."""
    distance = float(found.distance[row])
    if not found.inside[row]:
        where = " where the photo classifier thinks it likely" if joint else ""
        error = (
            f"outside of the index's area: no tile is near enough{where} (squared distance {distance:.3g}; 95 % of "
            f"validation photos have their own within {reach:.3g})"
            if math.isfinite(distance)
            else "the network gave no embedding"
        )
        return LocatedOverhead("", METHOD, error=error)
    known = np.flatnonzero(found.candidate[row] >= 0)
    at = places[found.candidate[row][known]]
    names = [str(place) for place in nearest_places(at[:, 0], at[:, 1])]
    headings = found.candidate_heading[row][known]
    shares = found.probability[row][known]
    alternatives = tuple(
        Alternative(
            float(latitude),
            float(longitude),
            name,
            float(share),
            f"heading {round(heading) % 360}°" if heading == heading else "",
        )
        for (latitude, longitude), name, share, heading in zip(at, names, shares, headings, strict=True)
    )
    return LocatedOverhead(
        "",
        METHOD,
        float(found.latitude[row]),
        float(found.longitude[row]),
        names[0],
        float(shares[0]),
        alternatives,
        heading=_known(found.heading[row]),
        heading_error=_known(found.heading_error),
        radius_km=float(found.radius_km[row]),
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _metres(km: float) -> str:
    return f"{1000 * km:.0f} m" if km < 1 else f"{km:.1f} km"


def _wedge(place: LocatedOverhead) -> list[list[tuple[float, float]]]:
    """The sector in which a photo looks, as one ring of latitude and longitude; none without a heading."""
    if place.heading is None or place.latitude is None or place.longitude is None:
        return []
    half = max(place.heading_error or 0.0, 5.0)
    bearings = place.heading + np.linspace(-half, half, 9)
    latitude, longitude = destination(place.latitude, place.longitude, bearings, _WEDGE_KM)
    return [[(place.latitude, place.longitude), *zip(latitude.tolist(), longitude.tolist(), strict=True)]]
