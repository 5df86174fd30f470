"""How many pairs of points are solved: in blocks of equal shape, on one device or many."""
