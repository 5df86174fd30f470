"""Spectral Newton: piecewise polynomial paths, their energy, and its minimisation."""
