"""Which hidden units of two networks correspond, and how far apart networks are up to that."""
