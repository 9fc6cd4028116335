"""The pool of photos: catalog, shards, the sources that fill it, near-duplicates and splits."""
