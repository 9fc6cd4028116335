"""What compares builds: claims and comparisons."""
