"""Settings of the sample planet: sizes, shares, and how much dirt of each kind."""

from __future__ import annotations

from geoloc.settings import Number, Settings, SettingsError, setting


def _share(default: float, help: str) -> float:
    """A small share of the photos, so that all kinds of dirt together leave most photos clean."""
    share: float = setting(default, minimum=0.0, maximum=0.05, help=help)
    return share


class DirtSettings(Settings):
    """Rows of each kind of dirt, as a share of the photos; rounded to whole rows, so that counts are known beforehand.

    The kinds from `truncated_image` to `repeated_id` are additional rows; the others change existing photos.
    """

    truncated_image: Number = _share(0.002, "the file is cut short")
    not_an_image: Number = _share(0.001, "an HTML page with the name of a picture")
    no_such_file: Number = _share(0.001, "a missing file")
    no_coordinates: Number = _share(0.002, "latitude and longitude empty")
    zero_coordinates: Number = _share(0.002, "latitude 0, longitude 0")
    latitude_out_of_range: Number = _share(0.001, "a latitude above 90")
    repeated_id: Number = _share(0.001, "another picture with an id that is already used")
    swapped_coordinates: Number = _share(0.003, "latitude and longitude exchanged")
    wrong_coordinates: Number = _share(0.004, "coordinates of a distant place")
    gps_noise: Number = _share(0.01, "coordinates that are 200 to 500 m off")
    missing_time: Number = _share(0.01, "taken_at empty")
    impossible_time: Number = _share(0.003, "posted_at days before taken_at")
    cmyk: Number = _share(0.002, "a CMYK JPEG")
    sixteen_bit: Number = _share(0.002, "16-bit greyscale, PNG or TIFF")
    alpha: Number = _share(0.002, "PNG with transparency")
    exif_rotation: Number = _share(0.005, "stored rotated, with the EXIF orientation tag that corrects it")
    grey: Number = _share(0.005, "a greyscale JPEG")


class SampleSettings(Settings):
    """Settings of the sample planet. Equal settings, photos, seed and version give the same sample."""

    size: int = setting(128, minimum=32, maximum=512, help="ground photos: width and height in pixels")
    cities: int = setting(120, minimum=2, maximum=20_000, help="number of cities to draw")
    photos_per_photographer: int = setting(
        12, minimum=2, maximum=1000, help="mean number of photos per photographer"
    )
    zipf_exponent: Number = setting(
        0.8,
        minimum=0.0,
        maximum=1.5,
        help="activity of the n-th photographer is (n + 4) to the power of minus this",
    )
    burst_share: Number = setting(
        0.06, minimum=0.0, maximum=0.5, help="share of photos that repeat the previous one, seconds later"
    )
    exact_copy_share: Number = setting(
        0.004,
        minimum=0.0,
        maximum=0.1,
        help="share of photos that are byte-identical copies of another photographer's",
    )
    near_copy_share: Number = setting(
        0.006,
        minimum=0.0,
        maximum=0.1,
        help="share of photos that are another photographer's, resized, cropped or recompressed",
    )
    no_cue_share: Number = setting(
        0.12, minimum=0.0, maximum=0.9, help="mean share of indoor, food, pet and portrait pictures"
    )
    rural_share: Number = setting(
        0.12, minimum=0.0, maximum=1.0, help="share of photos taken 10 to 60 km from a city"
    )
    heading_share: Number = setting(
        0.7, minimum=0.0, maximum=1.0, help="share of photos with a recorded heading"
    )
    overhead_share: Number = setting(
        0.25,
        minimum=0.0,
        maximum=1.0,
        help="share of outdoor photos, without bursts and copies, that have an overhead tile",
    )
    tile_size: int = setting(128, minimum=32, maximum=1024, help="overhead tiles: width and height in pixels")
    metres_per_pixel: Number = setting(
        1.0, minimum=0.1, maximum=10.0, help="overhead tiles: metres per pixel on the ground"
    )
    dirt: DirtSettings = setting(DirtSettings(), help="deliberate faults; the truth is recorded separately")

    def check(self, key: str) -> None:
        """Raise SettingsError if the shares of copies and bursts sum to more than 0.5."""
        copies = self.exact_copy_share + self.near_copy_share
        if copies + self.burst_share > 0.5:
            raise SettingsError(
                f"{key}.exact_copy_share, {key}.near_copy_share and {key}.burst_share must sum to at most 0.5, "
                f"got {copies + self.burst_share:g}"
            )


NO_DIRT = DirtSettings(**dict.fromkeys(DirtSettings.model_fields, 0.0))
"""For tests and studies that need clean photos only."""
