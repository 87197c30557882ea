"""Spin models of networks: replica theory, TAP, phases, Monte Carlo, spectra."""
