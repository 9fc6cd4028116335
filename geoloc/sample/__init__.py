"""A small generated data set, so that the whole chain can be seen at work on a fresh machine."""

from geoloc.sample.generate import SampleSummary, make_sample
from geoloc.sample.world import SampleSettings

__all__ = ["SampleSettings", "SampleSummary", "make_sample"]
