"""Multivariate normal distributions: geodesics between any two."""
