"""Published collections for image retrieval, in the layouts in which they are distributed."""
