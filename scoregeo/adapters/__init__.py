"""Bridges to other libraries, one file for each: `scoregeo.adapters.geomstats`,
`scoregeo.adapters.sklearn`.

Nothing else in the package imports them, and each imports its library only when it is itself imported by name.
"""
