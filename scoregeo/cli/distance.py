"""``scoregeo distance``: the geodesic distance of two points under the metric of a saved model."""

import dataclasses

from rich.console import Console

from ._geometry import double_precision
from ._io import unit_of_length
from ._pair import PairCommand, check_converged, read_problem


@dataclasses.dataclass(frozen=True)
class Distance(PairCommand):
    """The arguments of ``scoregeo distance``."""

    def run(self, console: Console) -> None:
        """Print length, error estimate and status; raises `CommandError` if the solve failed."""
        problem = read_problem(self)
        with double_precision():
            _, record = problem.solve()
        console.print(
            f"distance {record['length']:.8g} +- {record['error']:.1e} ({unit_of_length(problem.model)}; "
            f"straight line {record['euclidean']:.8g}; sigma {problem.geometry.sigma:g}, "
            f"strength {problem.geometry.strength:g}; {record['status']})",
            soft_wrap=True,
        )
        check_converged(record)
