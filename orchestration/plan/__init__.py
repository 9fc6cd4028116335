"""The chain of stages as one table, and the settings of a build."""
