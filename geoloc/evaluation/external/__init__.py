"""Predictions and test sets from elsewhere: read, matched by photo, and measured. Start at score.py."""
