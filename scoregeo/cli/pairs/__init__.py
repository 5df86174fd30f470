"""Commands about pairs of points: ``geodesic``, ``distance``, ``compare``, one file for each."""
