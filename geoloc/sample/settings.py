"""What the sample planet is made of: sizes, shares, and how much dirt of each kind."""

from __future__ import annotations

from geoloc.settings import Number, Settings, SettingsError, setting


def _share(default: float, help: str) -> float:
    """A share of the photos that stays small, so that all kinds of dirt together leave most photos clean."""
    share: float = setting(default, minimum=0.0, maximum=0.05, help=help)
    return share


class DirtSettings(Settings):
    """Rows of each kind of dirt, as a share of the photos. Rounded to whole rows, so that counts are known beforehand.

    The kinds from `truncated_image` to `repeated_id` are rows on top of the photos; the others befall the photos.
    """

    truncated_image: Number = _share(0.002, "the file breaks off")
    not_an_image: Number = _share(0.001, "a web page under the name of a picture")
    no_such_file: Number = _share(0.001, "a file that is not there")
    no_coordinates: Number = _share(0.002, "latitude and longitude empty")
    zero_coordinates: Number = _share(0.002, "latitude 0, longitude 0")
    latitude_out_of_range: Number = _share(0.001, "a latitude above 90")
    repeated_id: Number = _share(0.001, "another picture under an id already used")
    swapped_coordinates: Number = _share(0.003, "latitude and longitude exchanged")
    wrong_coordinates: Number = _share(0.004, "a place far away")
    gps_noise: Number = _share(0.01, "200 to 500 m off")
    missing_time: Number = _share(0.01, "no time of taking")
    impossible_time: Number = _share(0.003, "posted days before it was taken")
    cmyk: Number = _share(0.002, "a JPEG of four colours")
    sixteen_bit: Number = _share(0.002, "grey of 16 bits, PNG or TIFF")
    alpha: Number = _share(0.002, "PNG with transparency")
    exif_rotation: Number = _share(0.005, "stored turned, with the EXIF tag that turns it upright")
    grey: Number = _share(0.005, "a grey JPEG")


class SampleSettings(Settings):
    """The make-up of the sample planet. The same settings, photos, seed and version give the same sample."""

    size: int = setting(128, minimum=32, maximum=512, help="ground photos: pixels each way")
    cities: int = setting(120, minimum=2, maximum=20_000, help="cities to draw from")
    photos_per_photographer: int = setting(12, minimum=2, maximum=1000, help="on average")
    zipf_exponent: Number = setting(
        0.8, minimum=0.0, maximum=1.5, help="activity of the n-th photographer: (n + 4) to minus this power"
    )
    burst_share: Number = setting(
        0.06, minimum=0.0, maximum=0.5, help="photos that repeat the one before, seconds later"
    )
    exact_copy_share: Number = setting(
        0.004, minimum=0.0, maximum=0.1, help="photos with the bytes of another photographer's"
    )
    near_copy_share: Number = setting(
        0.006, minimum=0.0, maximum=0.1, help="photos that are another's, resized, cropped or recompressed"
    )
    no_cue_share: Number = setting(
        0.12, minimum=0.0, maximum=0.9, help="indoor, food, pet and portrait pictures, on average"
    )
    rural_share: Number = setting(0.12, minimum=0.0, maximum=1.0, help="photos taken 10 to 60 km from a city")
    heading_share: Number = setting(0.7, minimum=0.0, maximum=1.0, help="photos whose heading is recorded")
    overhead_share: Number = setting(
        0.25, minimum=0.0, maximum=1.0, help="outdoor photos with a tile from above; bursts and copies apart"
    )
    tile_size: int = setting(128, minimum=32, maximum=1024, help="tiles: pixels each way")
    metres_per_pixel: Number = setting(1.0, minimum=0.1, maximum=10.0, help="tiles: metres on the ground")
    dirt: DirtSettings = setting(DirtSettings(), help="faults on purpose, their truth recorded apart")

    def check(self, key: str) -> None:
        """Rules between fields. Raises SettingsError."""
        copies = self.exact_copy_share + self.near_copy_share
        if copies + self.burst_share > 0.5:
            raise SettingsError(
                f"{key}.exact_copy_share, {key}.near_copy_share and {key}.burst_share must sum to at most 0.5, "
                f"got {copies + self.burst_share:g}"
            )


NO_DIRT = DirtSettings(**dict.fromkeys(DirtSettings.model_fields, 0.0))
"""For tests and studies that want clean photos only."""
