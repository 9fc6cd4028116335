"""Comparing builds: claims and comparisons."""
