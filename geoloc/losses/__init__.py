"""The losses that networks are trained with."""
