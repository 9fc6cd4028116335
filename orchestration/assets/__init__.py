"""The Dagster assets: one file a stage of the chain with its `build`, and the factory that makes them assets."""
