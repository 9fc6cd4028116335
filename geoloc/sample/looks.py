"""How a place of the sample planet looks: climate, building styles of the country, colours and signs of the city.

The scales are nested. Climate and relief are smooth and change over thousands of kilometres. A country adds its
palette, roofs, road lines, script and side of the traffic; a city its pavement, accent colour and tower; a quarter of
a city its tint. Coasts with the same motif (see geography) look alike on purpose. All results are integers, so that
the drawing does not depend on how a processor rounds floats.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoloc.sample.fields import PLANET, fields
from geoloc.sample.geography import all_cities, city_rows, relief
from geoloc.sample.hashing import choice, uniform

Colour = NDArray[np.int32]

ROOFS = ("flat", "gable", "dome", "tiered", "spire")
TREES = ("conifer", "round", "palm", "scrub")
SCRIPTS = (
    "latin", "cyrillic", "greek", "arabic", "hebrew", "devanagari", "thai", "han", "kana", "hangul", "ethiopic",
    "armenian",
)  # fmt: skip

_SCRIPT_OF = {
    "cyrillic": "RU UA BY BG RS MK KZ KG MN",
    "greek": "GR CY",
    "arabic": "SA EG IQ IR SY JO LB KW QA AE OM YE LY TN DZ MA SD AF PK",
    "hebrew": "IL",
    "devanagari": "IN NP",
    "thai": "TH LA KH MM",
    "han": "CN TW HK MO SG",
    "kana": "JP",
    "hangul": "KR KP",
    "ethiopic": "ET ER",
    "armenian": "AM GE",
}
_LEFT = (
    "GB IE AU NZ JP IN PK BD LK NP TH MY SG ID ZA KE UG TZ ZM ZW MZ BW NA MW LS SZ MU JM TT BB GY SR CY MT HK MO BN TL "
    "PG FJ"
)
"""Countries where traffic keeps left."""

_WALLS = np.array(
    [[226, 218, 204], [204, 158, 92], [158, 78, 62], [132, 130, 128], [230, 186, 176], [150, 172, 186],
     [196, 190, 120], [112, 84, 62], [238, 238, 234], [98, 112, 96]]
)  # fmt: skip
_ROOF_COLOURS = np.array(
    [[182, 88, 58], [84, 90, 100], [92, 128, 104], [150, 140, 122], [120, 52, 46], [64, 96, 140]]
)
_BEACH = {
    "sky_top": (58, 130, 214), "sky_low": (196, 220, 232), "grass": (118, 158, 70), "wall": (236, 228, 210),
    "roof": (196, 130, 80), "leaf": (44, 132, 50),
}  # fmt: skip
_FJORD = {
    "sky_top": (120, 152, 190), "sky_low": (206, 214, 220), "grass": (92, 128, 84), "wall": (168, 62, 50),
    "roof": (74, 78, 86), "leaf": (38, 78, 54),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Look:
    """The look of one place. Colours are int32 (3,) from 0 to 255."""

    sky_top: Colour
    sky_low: Colour
    grass: Colour
    crop: Colour
    road: Colour
    rock: Colour
    leaf: Colour
    walls: Colour  # (3, 3): a house has one of three
    roof: Colour
    line: Colour  # on the road
    paving_a: Colour
    paving_b: Colour
    accent: Colour  # of the city: awnings and signs
    paving: int  # 0 to 3: pattern
    roof_kind: int  # index into ROOFS
    tree_kind: int  # index into TREES
    script: int  # index into SCRIPTS
    window_width: int  # centimetres
    window_pitch: int  # centimetres
    relief: int  # 0 to 255
    cold: int  # 0 to 255
    dry: int  # 0 to 255
    left: bool  # traffic keeps left
    motif: str
    seaward: float  # bearing of the sea in degrees; NaN inland


def look_at(latitude: float, longitude: float, city: int, east_m: float, north_m: float) -> Look:
    """Returns the look of a place in a city: coordinates in degrees, `east_m` and `north_m` from the centre."""
    here = _CityLook.of(city)
    wide = fields(latitude, longitude, 15, 1.5, 5.0, 0)[0]  # continents
    fine = fields(latitude, longitude, 24, 4.0, 12.0, 1)[0]  # countries and regions
    away = abs(latitude)
    cold = _between((away - 18) / 48 + 0.12 * fine[0])
    belt = max(0.0, 1 - ((away - 25) / 16) ** 2)  # the dry belts beside the tropics
    dry = _between(0.12 + 0.45 * belt + 0.45 * wide[0] + 0.15 * fine[1] - 0.2 * cold)

    grass = _mix(cold, (96, 146, 56), (112, 132, 88))
    grass = _mix(dry, grass, (206, 168, 108))
    grass = _mix(_between(wide[1]) * dry, grass, (184, 96, 60))  # red earth
    grass = grass + 20 * wide[9:12]
    leaf = _mix(cold, (40, 128, 38), (36, 78, 52))
    leaf = _mix(dry, leaf, (132, 138, 74))
    rock = _mix(_between((wide[2] + 1) / 2), (116, 110, 124), (150, 112, 84))
    sky_top = _mix(cold, (58, 122, 208), (112, 154, 200)) + 34 * wide[3:6] + 12 * fine[4]
    sky_low = _mix(dry, (190, 216, 234), (226, 210, 184)) + 26 * wide[6:9] + 10 * fine[5]

    tint = 26 * (np.array(_quarter(city, east_m, north_m)) - 0.5)
    region = _blend(fine[7:17], _WALLS)
    walls = [0.45 * region + 0.55 * _WALLS[wall] + tint for wall in here.walls]
    roof = 0.5 * _blend(fine[17:23], _ROOF_COLOURS) + 0.5 * _ROOF_COLOURS[here.roof]
    made = {"sky_top": sky_top, "sky_low": sky_low, "grass": grass, "roof": roof, "leaf": leaf}
    roof_score = np.array([0.9 * dry - 0.3, 0.7 * cold, 0.6 * dry, 0.5 * (1 - cold), 0.5 * cold - 0.1])
    tree_score = np.array([2 * cold - 1, 0.4 - abs(cold - 0.45), 1 - 2.6 * cold, 1.6 * dry - 0.8])
    roof_kind = int((roof_score + 1.3 * here.roof_taste).argmax())
    tree_kind = int((tree_score + 0.2 * fine[20:24]).argmax())
    if here.motif:
        shared = _BEACH if here.motif == "beach" else _FJORD
        made = {name: 0.25 * made[name] + 0.75 * np.array(shared[name]) for name in made}
        walls = [0.3 * wall + 0.7 * np.array(shared["wall"]) for wall in walls]
        roof_kind = 0 if here.motif == "beach" else 1
        tree_kind = 2 if here.motif == "beach" else 0
    return Look(
        **{name: _whole(value) for name, value in made.items()},
        rock=_whole(rock),
        road=_whole(98 + 20 * dry + 24 * wide[12:15]),  # asphalt is of the rock of its continent
        crop=_whole(_mix(0.5, made["grass"], (214, 190, 96))),
        walls=_whole(np.array(walls)),
        line=here.line,
        paving_a=here.paving_a,
        paving_b=here.paving_b,
        accent=here.accent,
        paving=here.paving,
        roof_kind=roof_kind,
        tree_kind=tree_kind,
        script=here.script,
        window_width=here.window_width,
        window_pitch=here.window_pitch,
        relief=255 if here.motif == "fjord" else round(255 * float(relief(latitude, longitude)[0])),
        cold=round(255 * cold),
        dry=round(255 * dry),
        left=here.left,
        motif=here.motif,
        seaward=here.seaward,
    )


@dataclass(frozen=True, eq=False)
class _CityLook:
    """What a city and its country add to the look."""

    walls: tuple[int, int, int]
    roof: int
    roof_taste: NDArray[np.float64]
    line: Colour
    script: int
    left: bool
    paving: int
    paving_a: Colour
    paving_b: Colour
    accent: Colour
    window_width: int
    window_pitch: int
    motif: str
    seaward: float

    @staticmethod
    @functools.lru_cache(maxsize=4096)
    def of(city: int) -> _CityLook:
        row = all_cities().iloc[int(city_rows([city])[0])]
        country = str(row["country_code"])
        key = PLANET + 1000 * ord(country[0]) + ord(country[1])
        walls = [
            int(choice(len(_WALLS), key, 1)),
            int(choice(len(_WALLS), key, 2)),
            int(choice(len(_WALLS), city, 3)),
        ]
        paving = np.array([[float(uniform(side, 5, k)) for k in range(3)] for side in (city, -city)])
        return _CityLook(
            walls=(walls[0], walls[1], walls[2]),
            roof=int(choice(len(_ROOF_COLOURS), key, 4)),
            roof_taste=np.array([float(uniform(key, 5, k)) for k in range(len(ROOFS))]),
            line=np.array([232, 190, 40] if uniform(key, 6) < 0.4 else [236, 236, 232], np.int32),
            script=_script(country),
            left=country in _LEFT.split(),
            paving=int(choice(4, city, 7)),
            paving_a=_whole(132 + 72 * paving[0]),
            paving_b=_whole(78 + 72 * paving[1]),
            accent=_whole(30 + 220 * np.array([float(uniform(city, 8, k)) for k in range(3)])),
            window_width=int(70 + 20 * choice(5, key, 9)),
            window_pitch=int(180 + 30 * choice(5, city, 10)),
            motif=str(row["motif"]),
            seaward=float(row["seaward"]),
        )


def _script(country: str) -> int:
    for name, countries in _SCRIPT_OF.items():
        if country in countries.split():
            return SCRIPTS.index(name)
    return 0


def _quarter(city: int, east_m: float, north_m: float) -> list[float]:
    """Three tints of the quarter, 0 to 1: noise on a grid of 700 m, interpolated linearly."""
    x, y = east_m / 700, north_m / 700
    i, j = int(np.floor(x)), int(np.floor(y))
    s, t = x - i, y - j
    made = []
    for k in range(3):
        a, b, c, d = uniform(city, 91 + k, [i, i + 1, i, i + 1], [j, j, j + 1, j + 1]).tolist()
        made.append((a * (1 - s) + b * s) * (1 - t) + (c * (1 - s) + d * s) * t)
    return made


def _between(value: float) -> float:
    return min(max(float(value), 0.0), 1.0)


def _mix(amount: float, a: object, b: object) -> NDArray[np.float64]:
    return np.asarray(a, np.float64) * (1 - amount) + np.asarray(b, np.float64) * amount


def _blend(strength: NDArray[np.float64], colours: NDArray[np.int64]) -> NDArray[np.float64]:
    """Colours mixed so that the strongest field dominates, with soft borders."""
    weights = np.exp(3.5 * strength)
    return np.asarray((weights[:, None] * colours).sum(axis=0) / weights.sum())


def _whole(values: NDArray[np.float64]) -> Colour:
    return np.rint(np.clip(values, 0, 255)).astype(np.int32)
