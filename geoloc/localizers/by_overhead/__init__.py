"""Where a photo was taken, and where it looks, by the overhead tiles that match it."""
