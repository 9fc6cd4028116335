"""The sample planet: a generated Earth with geotagged photos, tiles from above, and the truth about both."""

from geoloc.sample.generate import SampleSummary, make_sample
from geoloc.sample.settings import NO_DIRT, DirtSettings, SampleSettings

SOURCE = "sample-planet"
"""Source name of its photos in a pool's catalog."""

__all__ = ["NO_DIRT", "SOURCE", "DirtSettings", "SampleSettings", "SampleSummary", "make_sample"]
