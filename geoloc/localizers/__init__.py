"""Localizers: everything that answers "where was this taken?" behind one interface.

`base` has the interface and the answers, `by_class` argmax over cells, `by_neighbour` retrieval, `hierarchy` and
`overlay` several partitions at once, `within_level` the best point for a wanted level. What makes confidences mean
something: `temperature` (scaling), `conformal` (regions with a chosen coverage), `calibration` (both), `abstention`.
"""
