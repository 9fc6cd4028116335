"""Localizers over the cells of a classifier."""
