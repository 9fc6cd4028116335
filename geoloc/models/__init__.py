"""Networks and their input: backbones, pooling, heads, preprocessing, batches of photos."""
