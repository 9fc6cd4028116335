"""Recipes with another training seed: `fine@8` is the recipe fine, trained with seed 8. It has no file of its own.

Stages above the training are equal to those of fine, and are shared with it. What differs is the luck of one training.
"""

from __future__ import annotations

import re

_SEEDED = re.compile(r"(?P<name>.+)@(?P<seed>[0-9]{1,9})")
PLAIN = re.compile(r".*__seed[0-9]+")
"""What no recipe's file may be called: names in DVC and Dagster, which have no @, would be those of a seed."""


def without_seed(recipe: str) -> str:
    """The recipe whose file is read: fine for fine@8."""
    found = _SEEDED.fullmatch(recipe)
    return found["name"] if found else recipe


def training_seed(recipe: str) -> int | None:
    """The training seed in a recipe's name; None if it names none."""
    found = _SEEDED.fullmatch(recipe)
    return int(found["seed"]) if found else None


def plain(recipe: str) -> str:
    """The recipe's name where @ is not allowed, as in names of DVC's stages and Dagster's assets: fine__seed8."""
    return recipe.replace("@", "__seed")
