"""Solvers whose unknowns are the nodes of a path at equal times."""
