"""Loss landscapes through the lens of spin-glass physics."""
