"""Room glass."""
