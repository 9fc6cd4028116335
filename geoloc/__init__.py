"""geoloc: where was this photo taken? The library; `orchestration` runs it."""
