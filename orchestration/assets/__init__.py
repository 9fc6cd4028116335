"""One file per stage of the chain, each with a `build` function."""
