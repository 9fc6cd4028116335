"""What the report shows of how a classifier comes to its answers."""
