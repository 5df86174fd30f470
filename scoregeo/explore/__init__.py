"""Pages to explore a metric in a browser: drag two points, and the geodesic between them follows.

`score_page` makes the page of a score, `normals_page` that of the Fisher-Rao geometry of two normal distributions; both
return HTML, which `write_page` writes. On the command line it is ``scoregeo explore``.
"""

from .page import normals_page, score_page, write_page
from .plane import Plane

__all__ = ["Plane", "normals_page", "score_page", "write_page"]
