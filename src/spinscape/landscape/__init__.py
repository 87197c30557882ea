"""Room landscape."""
