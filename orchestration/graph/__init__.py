"""The plan as Dagster: assets, checks, jobs, headless builds."""
