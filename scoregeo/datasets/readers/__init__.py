"""What files and folders hold: one reader for each kind, which changes no value.

A reader takes the path, ``where`` (how messages begin: the argument and the path) and `Options`, and returns a `Raw`.
Libraries are imported where a file needs them; nothing is unpickled.
"""
