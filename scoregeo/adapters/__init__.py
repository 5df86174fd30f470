"""Bridges to other libraries, one file or folder for each.

`scoregeo.adapters.diffusers`, `scoregeo.adapters.geomstats`, `scoregeo.adapters.optuna`, `scoregeo.adapters.sklearn`,
`scoregeo.adapters.torch`.
Nothing else in the package imports them, and each imports its library only when it is itself imported by name.
"""
