"""What the commands run: studies wire protocols, store and report together."""
