"""How rugged the ground around solutions is, and whether that goes with generalisation."""
