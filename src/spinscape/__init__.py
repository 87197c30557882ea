"""Loss landscapes of neural networks through the lens of spin-glass physics.
"""
