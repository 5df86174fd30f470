"""How good a learned score is: against an exact one, and from held-out data alone."""
