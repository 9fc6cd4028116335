"""Rasters: a tile shows the ground around its place, north up, in any projection; what cannot be tiled is named."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from geoloc.photos.addresses import SourceError
from geoloc.photos.geotiff import open_raster
from geoloc.photos.map_tiles import open_tiles
from geoloc.photos.rasters import Grid, RasterError, cut_tile, ground_size
from geoloc.photos.sources.utm import from_utm
from geoloc.photos.sources.web_mercator import from_pixels, metres_per_pixel, to_pixels
from geoloc.sphere import destination, distance_km

PLACE = (48.0, 11.0)
UPRIGHT = Affine(1, 0, 5, 0, -1, 5)


def write_tiff(path, pixels, transform, crs="EPSG:25832", **more):
    import rasterio

    bands = np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else pixels[None]
    shape = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
    with rasterio.open(
        path, "w", driver="GTiff", dtype=bands.dtype, crs=crs, transform=transform, **shape, **more
    ) as file:
        file.write(bands)
    return path


def landmark(side, east, south, size=6):
    """A grey picture of `side` metres and pixels, with a red square `east` and `south` of its middle."""
    pixels = np.full((side, side, 3), 90, np.uint8)
    column, row = side // 2 + east, side // 2 + south
    pixels[row - size : row + size, column - size : column + size] = (250, 0, 0)
    return pixels


def middle_of_red(pixels):
    rows, columns = np.nonzero((pixels[:, :, 0] > 180) & (pixels[:, :, 1] < 60))
    return columns.mean() + 0.5, rows.mean() + 0.5


@pytest.mark.parametrize("turn", [0, 30, 90])
def test_a_tile_is_north_up_and_true_to_size(tmp_path, turn):
    """The landmark is 60 m east and 20 m south of the place; the file itself may be turned."""
    from rasterio.warp import transform

    (x,), (y,) = transform("EPSG:4326", "EPSG:25832", [PLACE[1]], [PLACE[0]])
    affine = (
        Affine.translation(x, y)
        @ Affine.rotation(turn)
        @ Affine.scale(1, -1)
        @ Affine.translation(-200, -200)
    )
    # At 11 E, grid north is 1.5 degrees off true north.
    latitude, longitude = destination(*destination(*PLACE, 90, 0.060), 180, 0.020)
    pixels = np.full((400, 400, 3), 90, np.uint8)
    (mx,), (my,) = transform("EPSG:4326", "EPSG:25832", [float(longitude)], [float(latitude)])
    column, row = ~affine @ (mx, my)
    pixels[int(row) - 5 : int(row) + 5, int(column) - 5 : int(column) + 5] = (250, 0, 0)
    with open_raster(write_tiff(tmp_path / "a.tif", pixels, affine)) as raster:
        cut = cut_tile(raster, *PLACE, metres=200, pixels=100)
        assert cut.covered == 1
        assert middle_of_red(cut.pixels) == pytest.approx((80, 60), abs=1.0)  # 2 m a pixel
        assert ground_size(raster) == pytest.approx(1, rel=0.01)
        found = raster.from_pixels(*raster.to_pixels(*PLACE))
        assert np.allclose(np.ravel(found), PLACE, atol=1e-9)


def map_tiles(folder, zoom=18, around=1, side=256, leave_out=()):
    """Map tiles around PLACE, a grey gradient whose colour tells the world's column and row."""
    column, row = to_pixels(*PLACE, zoom)
    for x in range(int(column) // 256 - around, int(column) // 256 + around + 1):
        for y in range(int(row) // 256 - around, int(row) // 256 + around + 1):
            if (x - int(column) // 256, y - int(row) // 256) in leave_out:
                continue
            file = folder / str(zoom) / str(x) / f"{y}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.zeros((side, side, 3), np.uint8)
            pixels[:, :, 0] = (np.arange(side) * 256 // side)[None, :]
            pixels[:, :, 1] = (np.arange(side) * 256 // side)[:, None]
            Image.fromarray(pixels).save(file)
    return folder


def test_map_tiles_are_put_together(tmp_path):
    with open_tiles(map_tiles(tmp_path, side=512)) as raster:
        assert (raster.width, raster.height) == (1536, 1536)
        metres = float(metres_per_pixel(PLACE[0], 18)) * 64
        cut = cut_tile(raster, *PLACE, metres=metres, pixels=64)
        column, row = (float(one) % 256 for one in to_pixels(*PLACE, 18))
        assert cut.covered == 1
        inner = cut.pixels[31:33, 31:33].astype(float).mean(axis=(0, 1))
        assert inner[:2] == pytest.approx([column, row], abs=1.5)
        outside = cut_tile(raster, PLACE[0] + 1, PLACE[1], metres=metres, pixels=64)
        assert (outside.covered, outside.pixels.max()) == (0, 0)


def test_a_tile_on_the_edge_tells_how_much_of_it_is_covered(tmp_path):
    folder = map_tiles(tmp_path, leave_out=[(0, -1), (0, 1), (1, 0), (-1, 0)])
    with open_tiles(folder) as raster:
        column, row = (int(one) // 256 * 256 for one in to_pixels(*PLACE, 18))
        latitude, longitude = from_pixels(column + 128, row, 18)  # in the middle of the northern side
        metres = float(metres_per_pixel(latitude, 18)) * 128
        cut = cut_tile(raster, float(latitude), float(longitude), metres=metres, pixels=64)
        assert cut.covered == pytest.approx(0.5, abs=0.03)
        assert cut.pixels[:30].max() == 0
        assert cut.pixels[34:].max() > 0


def test_imagery_without_data_is_no_imagery(tmp_path):
    from rasterio.transform import from_origin

    pixels = np.full((100, 100, 3), 90, np.uint8)
    pixels[:, 50:] = 0
    path = write_tiff(tmp_path / "a.tif", pixels, from_origin(11, 48, 1e-5, 1e-5), crs="EPSG:4326", nodata=0)
    with open_raster(path) as raster:
        cut = cut_tile(raster, 47.9995, 11.0005, metres=20, pixels=32)
        assert 0.3 < cut.covered < 0.7


def test_palettes_and_grey_become_colours(tmp_path):
    import rasterio
    from rasterio.transform import from_origin

    path = write_tiff(
        tmp_path / "a.tif", np.full((50, 50), 7, np.uint8), from_origin(11, 48, 1e-5, 1e-5), "EPSG:4326"
    )
    with open_raster(path) as raster:
        assert cut_tile(raster, 47.99975, 11.00025, 20, 8).pixels[4, 4].tolist() == [7, 7, 7]
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {7: (1, 2, 3, 255)})
    with open_raster(path) as raster:
        assert cut_tile(raster, 47.99975, 11.00025, 20, 8).pixels[4, 4].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f: write_tiff(f, np.zeros((9, 9), np.uint8), UPRIGHT, None), "has no coordinate system"),
        (lambda f: write_tiff(f, np.zeros((9, 9), np.uint16), UPRIGHT), "bands of uint16"),
        (
            lambda f: write_tiff(f, np.zeros((9, 9), np.uint8), UPRIGHT, 'LOCAL_CS["x",UNIT["metre",1]]'),
            "no way to latitude and longitude",
        ),
        (lambda f: write_tiff(f, np.zeros((9, 9), np.uint8), Affine(1, 0, 5e7, 0, -1, 5e8)), "lies outside of it"),
        (lambda f: write_tiff(f, np.zeros((9, 9), np.uint8), Affine(1, 1, 5, 1, 1, 5)), "makes a line of its pixels"),
        (lambda f: f.write_text("no picture"), "no raster that can be read"),
        (lambda f: None, "is not a file"),
    ],
)  # fmt: skip
def test_a_raster_that_cannot_be_used_is_named(tmp_path, spoil, told):
    file = tmp_path / "area.tif"
    spoil(file)
    with pytest.raises(RasterError, match=rf"area\.tif.*{told}"), open_raster(file):
        pass


@pytest.mark.parametrize(
    ("size", "told"), [((3000, 3000), "too large for a map tile"), ((256, 128), "map tiles are square")]
)
def test_a_picture_that_is_no_map_tile_is_named(tmp_path, size, told):
    file = tmp_path / "3" / "1" / "2.png"
    file.parent.mkdir(parents=True)
    Image.new("RGB", size).save(file)
    with pytest.raises(RasterError, match=rf"3/1/2\.png.*{told}"), open_tiles(tmp_path):
        pass


def test_folders_without_map_tiles_are_named(tmp_path):
    with pytest.raises(RasterError, match="no map tiles"), open_tiles(tmp_path):
        pass
    map_tiles(tmp_path, zoom=5, around=0)
    with pytest.raises(RasterError, match="no map tiles of zoom 9; it has 5"), open_tiles(tmp_path, 9):
        pass
    (tmp_path / "tilemapresource.xml").write_text("<TileMap/>")
    with pytest.raises(RasterError, match="as TMS has, whose y is from the south"), open_tiles(tmp_path):
        pass


@given(st.floats(-84, 84), st.floats(-179, 179), st.integers(0, 22))
def test_web_mercator_there_and_back(latitude, longitude, zoom):
    back = from_pixels(*to_pixels(latitude, longitude, zoom), zoom)
    assert np.allclose(back, (latitude, longitude), atol=1e-7)


def test_a_grid_covers_its_area_evenly(tmp_path):
    with open_tiles(map_tiles(tmp_path)) as raster:
        grid = Grid.over(raster, 50)
        ids, latitude, longitude = zip(*grid.centres(), strict=True)
        assert len(grid) == len(set(ids)) == len(ids)
        columns, rows = raster.to_pixels(np.array(latitude), np.array(longitude))
        assert 0 < columns.min() < columns.max() < raster.width
        assert 0 < rows.min() < rows.max() < raster.height
        assert distance_km(latitude[0], longitude[0], latitude[1], longitude[1]) * 1000 == pytest.approx(
            50, rel=0.1
        )
        with pytest.raises(RasterError, match="take a larger step"):
            Grid.over(raster, 0.01)


@pytest.mark.parametrize(
    ("affine", "crs"),
    [
        (Affine(4, 0, 833_800, 0, -4, 100_000), "EPSG:32660"),
        (Affine(4e-5, 0, 179.998, 0, -4e-5, 1), "EPSG:4326"),
    ],
)
def test_a_raster_over_the_antimeridian_is_one_area(tmp_path, affine, crs):
    pixels = np.full((100, 100, 3), 90, np.uint8)
    with open_raster(write_tiff(tmp_path / "a.tif", pixels, affine, crs)) as raster:
        places = [(latitude, longitude) for _, latitude, longitude in Grid.over(raster, 50).centres()]
        east = np.array([longitude for _, longitude in places])
        assert 30 < len(places) < 120
        assert (east >= -180).all()
        assert (east < 180).all()
        assert {round(one) for one in east} == {180, -180}
        covered = [cut_tile(raster, *place, metres=50, pixels=8).covered == 1 for place in places]
        assert np.mean(covered) > 0.5


@pytest.mark.parametrize(
    ("affine", "crs", "told"),
    [
        (Affine(1, 0, -50, 0, -1, 50), "EPSG:3995", "has a pole in it"),
        (Affine(0.1, 0, 11, 0, -0.1, 95), "EPSG:4326", "lies partly outside"),
    ],
)
def test_areas_without_a_grid_are_named(tmp_path, affine, crs, told):
    file = write_tiff(tmp_path / "a.tif", np.full((100, 100), 9, np.uint8), affine, crs)
    with open_raster(file) as raster, pytest.raises(RasterError, match=rf"a\.tif.*{told}"):
        Grid.over(raster, 50)


def test_places_that_a_projection_does_not_know_are_on_no_pixel(tmp_path):
    """Those a quarter of the Earth from a zone of UTM, beside others."""
    with open_raster(write_tiff(tmp_path / "a.tif", landmark(100, 0, 0), UPRIGHT, "EPSG:32633")) as raster:
        columns, _ = raster.to_pixels(np.array([48.0, 0, 47]), np.array([15.0, 105, 14]))
    assert np.isfinite(columns).tolist() == [True, False, True]


@given(st.floats(-35.9, -35.0), st.floats(148.7, 149.4))
def test_utm_agrees_with_proj(latitude, longitude):
    from rasterio.warp import transform

    (x,), (y,) = transform("EPSG:4326", "EPSG:32755", [longitude], [latitude])
    assert np.allclose(from_utm(x, y, zone=55, south=True), (latitude, longitude), atol=1e-8)


def test_what_is_no_utm_coordinate_is_no_place():
    x, y = [0, 693_680, 1e12, 693_680], [0, 0, 6e6, 6_090_580]
    assert np.isnan(from_utm(x, y, zone=55, south=True)[0]).tolist() == [True, True, True, False]


def test_rasters_are_read_from_addresses(tmp_path):
    import fsspec
    from rasterio.transform import from_origin

    memory = fsspec.filesystem("memory")
    write_tiff(
        tmp_path / "a.tif", np.full((50, 50, 3), 7, np.uint8), from_origin(11, 48, 1e-5, 1e-5), "EPSG:4326"
    )
    map_tiles(tmp_path / "tiles", around=0)
    memory.pipe("/rasters/a.tif", (tmp_path / "a.tif").read_bytes())
    for file in (tmp_path / "tiles").rglob("*.png"):
        memory.pipe(f"/rasters/tiles/{file.relative_to(tmp_path / 'tiles').as_posix()}", file.read_bytes())
    with open_raster("memory://rasters/a.tif") as raster:
        assert cut_tile(raster, 47.99975, 11.00025, 20, 8).covered == 1
    with open_tiles("memory://rasters/tiles") as raster:
        assert (raster.width, raster.height) == (256, 256)
        assert cut_tile(raster, *PLACE, metres=5, pixels=8).covered > 0
    with pytest.raises(SourceError, match="nothing"), open_raster("memory://rasters/nothing.tif"):
        pass
