"""Everything that runs the library: Dagster, DVC, MLflow, Great Expectations and the command line."""
