"""Families of distributions, one file for each kin."""
