"""HTML pages from the templates: autoescaped, self-contained, the same bytes for the same values."""

from __future__ import annotations

import base64
import functools
import hashlib
import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> str:
    """Returns a page from a template. Every value is escaped; a missing value is an error."""
    return _environment().get_template(template).render(**values)


def script(name: str) -> tuple[Markup, str]:
    """Returns a script of the templates, unescaped, and its hash for the page's content security policy."""
    text = (TEMPLATES / name).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return Markup(text), f"sha256-{digest}"


def data_uri(data: bytes, kind: str = "image/png") -> str:
    """Bytes as a data URI, so that a page needs no other file."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def image_uri(data: bytes) -> str:
    """A JPEG or PNG picture as a data URI. Raises ValueError for anything else, which a page must not carry."""
    if data.startswith(b"\xff\xd8\xff"):
        return data_uri(data, "image/jpeg")
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data_uri(data, "image/png")
    raise ValueError("a picture in a report must be JPEG or PNG")


def percent(share: float | None, digits: int = 1) -> str:
    """A share in [0, 1] as a percentage without its sign; a dash where it is unknown."""
    return "–" if share is None or math.isnan(share) else f"{100 * share:.{digits}f}"


def signed(share: float, digits: int = 1) -> str:
    """A difference of shares in percentage points, with its sign: a true minus, as wide as the plus."""
    return f"{100 * share:+.{digits}f}".replace("-", "−")


def kilometres(km: float | None) -> str:
    """A distance for people: 0.42, 8.3, 512, 4,210; a dash where unknown; ∞ where more than half is unanswered."""
    if km is None or math.isnan(km):
        return "–"
    if math.isinf(km):
        return "∞"
    return f"{km:.2f}" if km < 1 else f"{km:.1f}" if km < 10 else f"{km:,.0f}"


def place(latitude: float | None, longitude: float | None) -> str:
    """Coordinates for people: 48.857° N, 2.352° E; a dash where there are none."""
    if latitude is None or longitude is None or math.isnan(latitude) or math.isnan(longitude):
        return "–"
    north, east = "N" if latitude >= 0 else "S", "E" if longitude >= 0 else "W"
    return f"{abs(latitude):.3f}° {north}, {abs(longitude):.3f}° {east}"


def count(number: int) -> str:
    """A whole number with thousands separated."""
    return f"{number:,}"


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(percent=percent, signed=signed, kilometres=kilometres, count=count)
    environment.globals.update(place=place)
    return environment
