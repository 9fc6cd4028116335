"""The neighbours behind an answer of `geoloc locate`, by how many photographers they are, and the modes of their
density."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from geoloc.places import nearest_places
from geoloc.retrieval.modes import Modes
from geoloc.retrieval.neighbours import Neighbours

LEAST_MASS = 0.01
"""Modes with less of the neighbours' weight are counted and not listed."""


@dataclass(frozen=True)
class Nearest:
    """A neighbour: a reference photo with its place (degrees) and similarity. `photographer` numbers the photographers
    of this answer's neighbours from 1, in order; their names are not shown."""

    photo: str
    latitude: float
    longitude: float
    similarity: float
    photographer: int


@dataclass(frozen=True)
class Mode:
    """A peak of the neighbours' density: its place, the share of their weight that it attracts (`mass`), and how many
    neighbours and photographers these are."""

    latitude: float
    longitude: float
    place: str
    mass: float
    neighbours: int
    photographers: int

    def __str__(self) -> str:
        return (
            f"{100 * self.mass:.0f} % at {self.latitude:.4f}, {self.longitude:.4f} {self.place} "
            f"({_many(self.neighbours, 'neighbour')} by {_many(self.photographers, 'photographer')})"
        )


@dataclass(frozen=True)
class Nearby:
    """The neighbours of one photo, most similar first; by how many photographers; and the modes with at least
    LEAST_MASS of their weight, heaviest first. `sigma` is the width of the density's kernel in degrees. The method nn
    has no density: None, and no modes."""

    neighbours: tuple[Nearest, ...]
    photographers: int
    modes: tuple[Mode, ...] = ()
    sigma: float | None = None

    @property
    def lines(self) -> list[str]:
        """What is said below an answer, a line each."""
        line = f"{_many(len(self.neighbours), 'neighbour')} by {_many(self.photographers, 'photographer')}"
        lines = [line if self.sigma is None else f"{line}, density with σ {self.sigma:g}°"]
        return lines + [f"mode {number}: {mode}" for number, mode in enumerate(self.modes, start=1)]


def nearby(
    references: pd.DataFrame, neighbours: Neighbours, modes: Modes | None, sigma: float | None = None
) -> list[Nearby]:
    """Describe the neighbours of N photos, found among `references` (the index's), and the modes of their density with
    kernel `sigma`, in degrees.

    A reference without a photographer counts as one by a photographer of its own.
    """
    names = references["photographer"].to_numpy(dtype=object)
    ids = neighbours.photo_ids()
    made = []
    for row in range(len(neighbours)):
        shown = np.flatnonzero(neighbours.row[row] >= 0)
        found = neighbours.row[row, shown]
        owner = pd.factorize(
            np.array([f"photo {r}" if pd.isna(names[r]) else f"by {names[r]}" for r in found], dtype=object)
        )[0]
        near = tuple(
            Nearest(
                str(ids[row, i]),
                float(neighbours.latitude[row, i]),
                float(neighbours.longitude[row, i]),
                round(float(neighbours.similarity[row, i]), 6),
                int(who) + 1,
            )
            for i, who in zip(shown, owner, strict=True)
        )
        peaks = () if modes is None else _modes(modes, row, shown, owner)
        made.append(Nearby(near, len(np.unique(owner)), peaks, sigma))
    return made


def _modes(modes: Modes, row: int, shown: np.ndarray, owner: np.ndarray) -> tuple[Mode, ...]:
    heavy = np.flatnonzero(modes.mass[row] >= LEAST_MASS)
    heavy = heavy[np.argsort(-modes.mass[row, heavy], kind="stable")]
    if not len(heavy):
        return ()
    places = nearest_places(modes.latitude[row, heavy], modes.longitude[row, heavy])
    of = modes.of[row, shown]
    return tuple(
        Mode(
            float(modes.latitude[row, mode]),
            float(modes.longitude[row, mode]),
            str(place),
            float(modes.mass[row, mode]),
            int((of == mode).sum()),
            len(np.unique(owner[of == mode])),
        )
        for mode, place in zip(heavy, places, strict=True)
    )


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
