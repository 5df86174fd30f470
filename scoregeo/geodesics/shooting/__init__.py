"""Solvers that integrate the geodesic equation and aim."""
