"""Figures about confidence: lines lie where the numbers say, and equal numbers give equal bytes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from geoloc.evaluation.measures.calibration import calibration_table
from geoloc.evaluation.measures.selective import risk_coverage
from geoloc.reports.confidence_figures import calibration_figure, risk_coverage_figure, top_k_figure
from geoloc.reports.style import method_colour


def heights(data: bytes, position: int = 0) -> np.ndarray:
    """Of the pixels in a method's colour, how far up the figure they are, from 0 to 1."""
    image = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    colour = np.array([round(255 * x) for x in to_rgb(method_colour(position))])
    found = np.argwhere(np.abs(image - colour).sum(axis=2) < 12)
    return 1 - found[:, 0] / len(image)


@pytest.mark.slow
def test_the_best_of_more_answers_lies_higher():
    errors = np.minimum.accumulate(10 ** np.random.default_rng(0).uniform(0, 4, (200, 5)), axis=1)
    data = top_k_figure(errors, (1, 5))
    assert data == top_k_figure(errors, (1, 5))
    near = errors[:, 0] < 100
    assert np.median(heights(data, 1)) > np.median(heights(data, 0))
    assert top_k_figure(errors[near], (1,)) != top_k_figure(errors, (1,))
    with pytest.raises(ValueError, match=r"k must be from 1 to 5 .* got \[6\]"):
        top_k_figure(errors, (6,))
    with pytest.raises(ValueError, match="at least one photo"):
        top_k_figure(errors[:0], (1,))


def test_a_good_confidence_has_its_line_below_a_bad_one():
    rng = np.random.default_rng(0)
    error = np.where(rng.random(300) < 0.5, 1.0, 900.0)
    good, bad = risk_coverage(-error, error, 25.0), risk_coverage(error, error, 25.0)
    data = risk_coverage_figure({"good": good, "bad": bad}, 25.0)
    # Above the legend and axes only: the line itself.
    assert np.quantile(heights(data, 1), 0.9) > np.quantile(heights(data, 0), 0.9) + 0.1
    assert data == risk_coverage_figure({"good": good, "bad": bad}, 25.0)
    with pytest.raises(ValueError, match="at least one curve"):
        risk_coverage_figure({}, 25.0)


def test_an_overconfident_method_lies_below_the_diagonal():
    sure = np.linspace(0.01, 1, 400)
    rng = np.random.default_rng(0)
    honest, vain = rng.random(400) < sure, rng.random(400) < sure / 3
    tables = {"honest": calibration_table(sure, honest), "vain": calibration_table(sure, vain)}
    data = calibration_figure(tables)
    assert np.median(heights(data, 1)) < np.median(heights(data, 0))
    assert data == calibration_figure(tables)
    with pytest.raises(ValueError, match="at least one table"):
        calibration_figure({})
