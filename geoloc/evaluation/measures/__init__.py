"""Measures: accuracy, intervals, baselines, ceilings, comparisons, calibration."""
