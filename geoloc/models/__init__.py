"""Networks and what feeds them: backbones, pooling, heads, preprocessing, batches of photos."""
