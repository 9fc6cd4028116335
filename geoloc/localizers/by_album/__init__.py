"""Localizers that answer for all photos of an album or of a person together."""
