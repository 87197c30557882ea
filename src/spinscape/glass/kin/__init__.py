"""Networks that share a part of their training, and what becomes of networks pushed away."""
