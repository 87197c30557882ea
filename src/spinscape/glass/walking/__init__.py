"""Walkers: how they move, what is recorded of them, and what that says of the landscape."""
