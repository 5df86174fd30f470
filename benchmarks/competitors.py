"""Other ways to the same geodesics, each told as much as scoregeo is: the competitors of the main benchmark.

    python benchmarks/competitors.py --problem three_modes [--only lbfgs georce_lowrank] [--budget 60] [--isolate]

Protocol. A competitor is a ladder of settings, cheap to accurate. Each setting gives an `Attempt`: the length it found,
the seconds of the solve alone (compiled before, results waited for, median of several where it is quick), the seconds
of compiling, and a status. `reached` then finds the cheapest setting that meets a target against a reference length.

- Every solve starts from the straight line. Where that fails it is repeated along a continuation in strength, as
  scoregeo does; both count. A competitor with ``nested`` starts every setting from that of half as many nodes.
- Two lengths are kept. `length` is that of a curve (the competitor's own, or the cubic spline through its nodes) by
  Gauss quadrature: an upper bound. `rule` is the midpoint rule on the nodes, where there are nodes. The better counts.
- Time and memory are limited. `attempts` stops between steps of a solver; `isolated` runs it in a process of its own
  that is ended if it does not stop. What failed keeps its reason.
"""

import argparse
import dataclasses
import importlib.util
import multiprocessing
import os
import pathlib
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from problems import (
    NAMES,
    OTHER_METRICS,
    Clock,
    GeodesicEquation,
    Kernel,
    OutOfTime,
    Problem,
    bvp_length,
    continuation,
    curve_length,
    problems,
    reference_length,
)
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from scoregeo import AbstractMetric, ConformalMetric, SteinMetric
from scoregeo.metrics.structure import as_diagonal

jax.config.update("jax_enable_x64", True)

CONVERGED, NOT_CONVERGED, NOT_FINITE = "converged", "not converged", "not finite"
OUT_OF_TIME, OUT_OF_MEMORY, FAILED = "out of time", "out of memory", "failed"
NOT_TRIED, NOT_INSTALLED = "not tried", "not installed"
_HOPELESS = (OUT_OF_TIME, OUT_OF_MEMORY, NOT_TRIED, NOT_INSTALLED)  # the next setting would fare no better
_QUICK_SECONDS = 2.0  # solves shorter than this are timed three times
_SHORT_SECONDS = 0.05  # and shorter than this, fifteen times
_QUANTUM = 0.2  # seconds between two looks at the deadline


@dataclasses.dataclass(frozen=True)
class Attempt:
    """What one setting of one competitor did on one problem.

    ``length`` and ``rule`` are as in the module's docstring (None where there is none), ``seconds`` is the median over
    ``repeats`` runs, ``iterations`` counts what the method calls a step.
    """

    competitor: str
    setting: str
    status: str
    length: float | None = None
    rule: float | None = None
    seconds: float | None = None
    compile_seconds: float | None = None
    iterations: int | None = None
    repeats: int = 0
    note: str = ""

    def errors(self, reference: float) -> tuple[float, float]:
        """Relative errors of ``length`` and of ``rule``; infinite where there is none."""
        values = [np.inf if value is None else value for value in (self.length, self.rule)]
        return tuple(abs(value / reference - 1) for value in values)


def reached(found: Iterable[Attempt], reference: float, target: float) -> Attempt | None:
    """The quickest attempt with a length within a relative ``target`` of the reference, or None.

    The length of a curve counts as it is. The midpoint rule may cross the right length by accident: it counts if that
    of the next finer setting meets the target too. Whether the solver said that it converged does not matter.
    """
    attempts = [attempt for attempt in found if attempt.length is not None]
    errors = [attempt.errors(reference) for attempt in attempts]
    good = [
        attempt
        for i, attempt in enumerate(attempts)
        if errors[i][0] <= target or (i + 1 < len(attempts) and max(errors[i][1], errors[i + 1][1]) <= target)
    ]
    return min(good, key=lambda attempt: attempt.seconds, default=None)


@dataclasses.dataclass
class Solved:
    """A state of a method (what it is, only the method knows), and how it was come by."""

    state: Any
    converged: bool
    iterations: int
    note: str = ""


class NodeMethod:
    """A method whose unknowns are nodes ``(n + 1, d)`` of a path at equal times, the end points first and last."""

    def __init__(self, problem: Problem, setting: tuple[int, float], clock: Clock):
        """Prepare a setting of it on a problem."""
        self.problem, self.clock = problem, clock
        self.n, self.tolerance = setting

    def start(self) -> np.ndarray:
        """The straight line."""
        return self.problem.x + np.linspace(0, 1, self.n + 1)[:, None] * (self.problem.y - self.problem.x)

    def refine(self, nodes: np.ndarray) -> np.ndarray:
        """The path of a coarser method at this one's times."""
        path = CubicSpline(np.linspace(0, 1, len(nodes)), nodes)(np.linspace(0, 1, self.n + 1))
        path[0], path[-1] = self.problem.x, self.problem.y
        return path

    def solve(self, strength: float, nodes: np.ndarray, deadline: float) -> Solved:
        """Improve ``nodes`` until this method is satisfied; raises `OutOfTime`."""
        raise NotImplementedError

    def lengths(self, nodes: np.ndarray) -> tuple[float, float]:
        """Length of the cubic spline through the nodes, and the midpoint rule."""
        p, t = self.problem, np.linspace(0, 1, self.n + 1)
        path = CubicSpline(t, nodes)
        velocity = path.derivative()
        middle, chord = (nodes[1:] + nodes[:-1]) / 2, np.diff(nodes, axis=0) * self.n

        def segment(times):
            i = np.minimum((times * self.n).astype(int), self.n - 1)
            return middle[i], chord[i]

        return curve_length(p, t, lambda s: (path(s), velocity(s))), curve_length(p, t, segment, order=1)


class StepMethod(NodeMethod):
    """Nodes improved by a compiled loop, left from time to time to look at the clock.

    ``run(score, strength, nodes, tolerance, limit) -> (nodes, steps, change, stuck)`` does at most ``limit`` steps, and
    stops at a relative change below ``tolerance`` or when it is stuck.
    """

    max_steps = 2000

    def __init__(self, problem: Problem, setting: tuple[int, float], clock: Clock):
        """Prepare a setting of it on a problem."""
        super().__init__(problem, setting, clock)
        self.chunk = Kernel(self.run, problem, clock)

    def run(self, score, strength, nodes, tolerance, limit):
        """The compiled loop."""
        raise NotImplementedError

    def solve(self, strength: float, nodes: np.ndarray, deadline: float) -> Solved:
        """Chunks that double in size while they are quick."""
        total, limit = 0, 1
        while total < self.max_steps:
            start = self.clock.now()
            nodes, steps, change, stuck = self.chunk(
                strength, nodes, self.tolerance, min(limit, self.max_steps - total)
            )
            total += int(steps)
            if change < self.tolerance or not np.isfinite(change):
                return Solved(nodes, bool(change < self.tolerance), total)
            if stuck:
                # At the limit of float64 no step lowers the energy; further away that is a failure.
                return Solved(nodes, bool(change < 1e-4), total, "line search stuck")
            if self.clock.now() > deadline:
                raise OutOfTime
            if self.clock.now() - start < _QUANTUM:
                limit *= 2
        return Solved(nodes, False, total, "iteration cap")


def forward_sums(vectors):
    """sum_{j > t} of rows j of ``vectors``, for every t."""
    return jnp.cumsum(vectors[::-1], 0)[::-1] - vectors


class Georce(StepMethod):
    """GEORCE (Rygaard & Hauberg 2025, arXiv 2505.05961), for any metric given as a matrix: T inverses of d x d a step.

    Minimises sum_t u_t^T G(x_t) u_t with x_{t+1} = x_t + u_t, where G is taken at the left end: first order in 1 / T.
    """

    def matrices(self, score, strength, points):
        """What `solver` and `energy` need of the metric at the points."""
        metric = self.problem.family(score, strength)
        return jax.vmap(lambda x: metric.at(x).matrix(x.size))(points)

    def energies(self, score, strength, x, u):
        """u^T G(x) u at one point: no matrix is needed."""
        return self.problem.squared_norm(score, strength, x, u)

    def direction(self, metric, strength, forces, ends):
        """The u that solve GEORCE's linear system, for ``forces`` = sum_{j > t} nu_j."""
        inverse = jnp.linalg.inv(metric)
        applied = jnp.einsum("tij,tj->ti", inverse, forces)
        mu = jnp.linalg.solve(jnp.sum(inverse, 0), 2 * (ends[0] - ends[1]) - jnp.sum(applied, 0))
        return -0.5 * (inverse @ mu + applied)

    def run(self, score, strength, nodes, tolerance, limit):
        """Steps of GEORCE with backtracking on the discrete energy."""

        def energy(nodes):
            # One point at a time is enough for a score; batches of 64 bound the memory of d x d matrices.
            terms = jax.lax.map(
                lambda xu: self.energies(score, strength, *xu), (nodes[:-1], jnp.diff(nodes, axis=0)), batch_size=64
            )
            return jnp.sum(terms)

        def step(carry):
            nodes, steps, _, _ = carry
            points, u = nodes[:-1], jnp.diff(nodes, axis=0)
            nu = jax.lax.map(
                lambda xu: jax.grad(lambda x: self.energies(score, strength, x, xu[1]))(xu[0]),
                (points, u),
                batch_size=64,
            )
            metric = self.matrices(score, strength, points)
            change = self.direction(metric, strength, forward_sums(nu), (nodes[0], nodes[-1])) - u
            moves = jnp.concatenate([jnp.zeros_like(u[:1]), jnp.cumsum(change, 0)[:-1], jnp.zeros_like(u[:1])])
            before = energy(nodes)

            def smaller(search):
                size, _, _ = search
                candidate = nodes + 0.5 * size * moves
                return 0.5 * size, candidate, energy(candidate)

            # A NaN energy is "not below", hence the negation.
            first = (jnp.ones(()), nodes + moves, energy(nodes + moves))
            _, candidate, after = jax.lax.while_loop(
                lambda search: ~(search[2] < before) & (search[0] > 1e-9), smaller, first
            )
            better = after < before
            relative = jnp.linalg.norm(change) / jnp.linalg.norm(u)
            return jnp.where(better, candidate, nodes), steps + 1, relative, ~better

        def unfinished(carry):
            _, steps, change, stuck = carry
            return (steps < limit) & (change >= tolerance) & ~stuck

        start = (nodes, jnp.zeros((), jnp.int64), jnp.asarray(jnp.inf), jnp.asarray(False))
        return jax.lax.while_loop(unfinished, step, start)


class LowRankGeorce(Georce):
    """The same steps for the Stein metric in O(T d + min(T, d)^3), by Woodbury's formula for sum_t G_t^-1."""

    def matrices(self, score, strength, points):
        """Scores only, ``(T, d)``."""
        return jax.vmap(score)(points)

    def direction(self, metric, strength, forces, ends):
        """As in `Georce`; with b_t = sqrt(strength / L_t) s_t the inverses are I - b_t b_t^T, their sum T I - B^T B."""
        steps, d = metric.shape
        b = metric * jnp.sqrt(strength / (1 + strength * jnp.sum(metric**2, -1)))[:, None]
        applied = forces - b * jnp.sum(b * forces, -1, keepdims=True)
        right = 2 * (ends[0] - ends[1]) - jnp.sum(applied, 0)
        if d <= steps:
            mu = jnp.linalg.solve(steps * jnp.eye(d) - b.T @ b, right)
        else:
            mu = (right + b.T @ jnp.linalg.solve(steps * jnp.eye(steps) - b @ b.T, b @ right)) / steps
        return -0.5 * (mu - b * (b @ mu)[:, None] + applied)


class ConformalGeorce(Georce):
    """The same steps for a conformal metric in O(T d): its matrices are numbers c_t."""

    def matrices(self, score, strength, points):
        """The factors, ``(T, 1)``."""
        metric = self.problem.family(score, strength)
        return jax.vmap(lambda x: as_diagonal(metric.at(x))[:1])(points)

    def direction(self, metric, strength, forces, ends):
        """As in `Georce`."""
        mu = (2 * (ends[0] - ends[1]) - jnp.sum(forces / metric, 0)) / jnp.sum(1 / metric)
        return -0.5 * (mu + forces) / metric


class LBFGS(NodeMethod):
    """SciPy's L-BFGS-B on the interior nodes: n / 2 sum_t |u_t|^2 in the metric at the middle of segment t.

    ``tolerance`` is the relative decrease of the energy in a step below which it stops.
    """

    def __init__(self, problem: Problem, setting: tuple[int, float], clock: Clock):
        """Prepare a setting of it on a problem."""
        super().__init__(problem, setting, clock)
        x, y, n = problem.x, problem.y, self.n

        def energy(interior, score, strength):
            nodes = jnp.concatenate([x[None], interior.reshape(n - 1, -1), y[None]])
            u, middle = jnp.diff(nodes, axis=0), (nodes[1:] + nodes[:-1]) / 2
            terms = jax.lax.map(lambda xu: problem.squared_norm(score, strength, *xu), (middle, u), batch_size=256)
            return n / 2 * jnp.sum(terms)

        self.value_and_gradient = Kernel(
            lambda score, strength, interior: jax.value_and_grad(energy)(interior, score, strength), problem, clock
        )

    def solve(self, strength: float, nodes: np.ndarray, deadline: float) -> Solved:
        """One call of SciPy."""

        def function(interior):
            if self.clock.now() > deadline:
                raise OutOfTime
            value, gradient = self.value_and_gradient(strength, interior)
            return float(value), gradient

        options = {"maxcor": 20, "maxiter": 50_000, "maxfun": 100_000, "ftol": self.tolerance, "gtol": 1e-12}
        # BLAS threads that wait for work take the cores from XLA: up to fifty times slower.
        with threadpool_limits(1):
            result = minimize(function, nodes[1:-1].ravel(), jac=True, method="L-BFGS-B", options=options)
        nodes = np.concatenate([nodes[:1], result.x.reshape(-1, self.problem.d), nodes[-1:]])
        # "ABNORMAL" is a line search at the limit of float64: only a small decrease was left.
        return Solved(nodes, bool(result.success or "ABNORMAL" in result.message), result.nit, result.message[:40])


class AdamSpline:
    """Adam on the control points of a cubic spline, as in Detlefsen et al.'s stochman: energy by Gauss quadrature.

    A setting is (segments of the spline, relative fall of the energy in 50 steps that counts as stagnation). The rate
    falls threefold at every stagnation, seven times; constant rates stop at two digits.
    """

    steps, decays = 50, 7

    def __init__(self, problem: Problem, setting: tuple[int, float], clock: Clock):
        """Prepare a setting of it on a problem."""
        self.problem, self.clock = problem, clock
        self.segments, self.tolerance = setting
        self.knots = np.linspace(0, 1, self.segments + 1)
        nodes, weights = np.polynomial.legendre.leggauss(4)
        t = ((self.knots[:-1, None] + self.knots[1:, None]) / 2 + nodes / (2 * self.segments)).ravel()
        # The spline is linear in its control points: values and derivatives at the quadrature points are two matrices.
        unit = CubicSpline(self.knots, np.eye(self.segments + 1))
        values, slopes = unit(t), unit.derivative()(t)
        weights = np.tile(weights, self.segments) / (2 * self.segments)
        adam = optax.scale_by_adam()

        def energy(interior, score, strength):
            control = jnp.concatenate([problem.x[None], interior, problem.y[None]])
            squares = jax.lax.map(
                lambda xv: problem.squared_norm(score, strength, *xv),
                (values @ control, slopes @ control),
                batch_size=256,
            )
            return weights @ squares / 2

        def chunk(score, strength, interior, moments, rate):
            unravelled = adam.init(interior)
            moments = optax.ScaleByAdamState(
                count=moments[0, 0, 0].astype(unravelled.count.dtype), mu=moments[1], nu=moments[2]
            )

            def step(carry, _):
                interior, moments, best, best_energy = carry
                value, gradient = jax.value_and_grad(energy)(interior, score, strength)
                better = value < best_energy
                best, best_energy = jnp.where(better, interior, best), jnp.where(better, value, best_energy)
                updates, moments = adam.update(gradient, moments)
                return (interior - rate * updates, moments, best, best_energy), None

            carry = (interior, moments, interior, jnp.asarray(jnp.inf))
            (interior, moments, best, best_energy), _ = jax.lax.scan(step, carry, None, length=self.steps)
            count = jnp.full_like(interior, moments.count)
            return interior, jnp.stack([count, moments.mu, moments.nu]), best, best_energy

        self.chunk = Kernel(chunk, problem, clock)

    def start(self) -> np.ndarray:
        """Interior control points of the straight line."""
        return self.problem.x + self.knots[1:-1, None] * (self.problem.y - self.problem.x)

    def solve(self, strength: float, interior: np.ndarray, deadline: float) -> Solved:
        """Chunks of steps, with a smaller rate after each that stagnates."""
        scale = np.sqrt(np.mean((self.problem.y - self.problem.x) ** 2))
        rate, decays, total = 0.03 * scale, 0, 0
        moments = np.zeros((3, *interior.shape))
        best, best_energy = interior, np.inf
        while decays < self.decays:
            if self.clock.now() > deadline:
                raise OutOfTime
            interior, moments, candidate, energy = self.chunk(strength, interior, moments, rate)
            total += self.steps
            if not np.isfinite(energy):
                return Solved(candidate, False, total)
            if energy > best_energy * (1 - self.tolerance):
                rate, decays = rate / 3, decays + 1
            if energy < best_energy:
                best, best_energy = candidate, energy
        return Solved(best, True, total)

    def lengths(self, interior: np.ndarray) -> tuple[float, None]:
        """Length of the spline."""
        control = np.concatenate([self.problem.x[None], interior, self.problem.y[None]])
        path = CubicSpline(self.knots, control)
        velocity = path.derivative()
        return curve_length(self.problem, self.knots, lambda t: (path(t), velocity(t))), None


class ScipyBvp:
    """``scipy.integrate.solve_bvp`` with the closed-form acceleration and its Jacobian; a setting is its tolerance."""

    def __init__(self, problem: Problem, setting: tuple[int, float], clock: Clock):
        """Prepare a setting of it on a problem."""
        self.problem, self.clock = problem, clock
        self.nodes, self.tolerance = setting
        self.equation = GeodesicEquation(problem, clock)

    def start(self) -> Any:
        """The straight line, on a mesh that SciPy refines."""
        return self.equation.line(self.nodes)

    def solve(self, strength: float, state: Any, deadline: float) -> Solved:
        """One call of SciPy; a state is a mesh and values on it, or SciPy's result."""
        mesh, values = state if isinstance(state, tuple) else (state.x, state.y)
        # On the way of a continuation more digits only enlarge the mesh.
        tolerance = self.tolerance if strength == self.problem.strength else 1e-2
        with threadpool_limits(1):
            result = self.equation.solve(strength, mesh, values, tolerance, deadline)
        note = f"{result.x.size} mesh points" + ("" if result.success else f": {result.message}")
        return Solved(result, bool(result.success), int(result.niter), note)

    def lengths(self, result: Any) -> tuple[float, None]:
        """Length of SciPy's piecewise cubic."""
        return bvp_length(self.problem, result), None


class Geomstats(NodeMethod):
    """geomstats' `PathStraightening` (symmetric energy, L-BFGS-B), on its autograd backend where that is installed.

    Its backend differentiates a squared norm that JAX computes, by a rule registered with autograd; otherwise it is
    left to SciPy's finite differences. ``tolerance`` is L-BFGS-B's relative decrease.
    """

    def __init__(self, problem: Problem, setting: tuple[int, float], clock: Clock):
        """Prepare a setting of it on a problem."""
        super().__init__(problem, setting, clock)
        differentiable = importlib.util.find_spec("autograd") is not None
        os.environ.setdefault("GEOMSTATS_BACKEND", "autograd" if differentiable else "numpy")
        # geomstats 2.8 imports a name that NumPy 2.4 has not.
        vars(np).setdefault("trapz", np.trapezoid)
        from geomstats.geometry.euclidean import Euclidean
        from geomstats.geometry.riemannian_metric import RiemannianMetric
        from geomstats.numerics.geodesic import PathStraightening
        from geomstats.numerics.optimization import ScipyMinimize

        def squared(score, strength, v, x):
            return jax.vmap(lambda v, x: problem.squared_norm(score, strength, x, v))(v, x)

        def pullback(score, strength, v, x, weights):
            return jax.vjp(lambda v, x: squared(score, strength, v, x), v, x)[1](weights)

        self.squared, self.pullback = Kernel(squared, problem, clock), Kernel(pullback, problem, clock)
        self.strength, self.deadline = problem.strength, np.inf

        def squared_norm(v, x):
            if self.clock.now() > self.deadline:
                raise OutOfTime
            return self.squared(self.strength, v, x)

        if differentiable:
            import autograd.numpy as anp
            from autograd.extend import defvjp, primitive

            # The symmetric energy, its only one of second order, flips the path: autograd has no rule for that.
            defvjp(anp.flip, lambda answer, path, axis=None: lambda weights: anp.flip(weights, axis))
            squared_norm = primitive(squared_norm)
            rules = [
                lambda answer, v, x, i=i: lambda weights: self.pullback(self.strength, v, x, weights)[i] for i in (0, 1)
            ]
            defvjp(squared_norm, *rules)

        class Peer(RiemannianMetric):
            """The metric, in geomstats' words."""

            def squared_norm(self, vector, base_point=None):
                """Squared norms of rows of vectors."""
                return squared_norm(vector, base_point)

        space = Euclidean(problem.d, equip=False)
        space.equip_with_metric(Peer)
        options = {"ftol": self.tolerance, "maxiter": 50_000, "maxfun": 100_000_000}
        self.optimizer = ScipyMinimize(
            method="L-BFGS-B", autodiff_jac=differentiable, options=options, save_result=True
        )
        self.note = "autograd" if differentiable else "finite differences"
        self.nodes = None
        self.solver = PathStraightening(
            space,
            n_nodes=self.n + 1,
            optimizer=self.optimizer,
            initialization=lambda point, base_point: self.nodes,
            symmetric=True,
        )

    def solve(self, strength: float, nodes: np.ndarray, deadline: float) -> Solved:
        """One call of geomstats."""
        self.strength, self.deadline, self.nodes = strength, deadline, nodes
        with threadpool_limits(1):
            found = np.asarray(self.solver.discrete_geodesic_bvp(self.problem.y, self.problem.x))
        result = self.optimizer.result_
        return Solved(found, bool(result.success or "ABNORMAL" in result.message), int(result.nit), self.note)


class Finslerax(NodeMethod):
    """finslerax' block-tridiagonal damped Newton, `GaussNewtonGeodesic`, on its energy with the midpoint rule.

    ``tolerance`` is that of the gradient, relative to its norm at the straight line (finslerax wants it absolute).
    """

    def __init__(self, problem: Problem, setting: tuple[int, float], clock: Clock):
        """Prepare a setting of it on a problem."""
        super().__init__(problem, setting, clock)
        from finslerax.geometry import EuclideanSpace, FinslerMetric, SegmentQuadratureMetric
        from finslerax.solvers import GaussNewtonGeodesic

        class Peer(FinslerMetric):
            """The metric, in finslerax' words: a squared norm, not a matrix."""

            score: Any = None  # a default, as the base class has some
            strength: Any = 1.0

            def metric_fn(self, x, v):
                """sqrt(v^T G v)."""
                return jnp.sqrt(self.squared(x, v))

            def energy(self, x, v):
                """1/2 v^T G v, without the root."""
                return 0.5 * self.squared(x, v)

            def squared(self, x, v):
                """v^T G v."""
                return problem.squared_norm(self.score, self.strength, x, v)

        solver = GaussNewtonGeodesic(iterations=200, tol=0.0)

        def metric_of(score, strength):
            return SegmentQuadratureMetric(Peer(EuclideanSpace(problem.d), score=score, strength=strength), nquad=2)

        def gradient_norm(score, strength, nodes):
            metric = metric_of(score, strength)

            def energy(interior):
                full = jnp.concatenate([nodes[:1], interior, nodes[-1:]])
                return jnp.sum(jax.vmap(metric.energy)(full[:-1], jnp.diff(full, axis=0)))

            return jnp.linalg.norm(jax.grad(energy)(nodes[1:-1]))

        self.gradient_norm = Kernel(gradient_norm, problem, clock)
        self.first = float(self.gradient_norm(problem.strength, self.start()))
        solver = dataclasses.replace(solver, tol=self.tolerance * self.first)

        def path(score, strength, nodes):
            found = solver.solve(
                metric_of(score, strength), nodes[0], nodes[-1], n_steps=self.n, init_path=nodes, train_mode=False
            )
            return found.xs

        self.path = Kernel(path, problem, clock)

    def solve(self, strength: float, nodes: np.ndarray, deadline: float) -> Solved:
        """One call of finslerax; it cannot be interrupted, and only its gradient tells whether it converged."""
        found = self.path(strength, nodes)
        if self.clock.now() > deadline:
            raise OutOfTime
        gradient = float(self.gradient_norm(strength, found)) / self.first
        # It stops after the step that follows a small gradient, and at the limit of float64 after 200.
        return Solved(found, gradient < max(10 * self.tolerance, 1e-6), 0, f"relative gradient {gradient:.0e}")


@dataclasses.dataclass(frozen=True)
class Competitor:
    """A method and its ladder of settings, from cheap to accurate.

    ``nested``: the state of every coarser setting starts the next, and all are counted. ``package``: what must be
    importable; ``max_dimension`` and ``reason``: beyond which dimension it is not tried, and why. ``only``: the class
    of metrics that it is for, if not for all.
    """

    name: str
    method: Callable
    settings: tuple
    nested: bool = False
    package: str | None = None
    max_dimension: int | None = None
    reason: str = ""
    only: type = AbstractMetric


# The tolerances fall with the discretisation error, which is of order 1 / n^2 and more: solving a coarse one exactly
# would only waste the competitor's time.
_STEPS = tuple((25 * 2**k, 10.0 ** -min(2 + k, 4)) for k in range(8))
_DECREASES = ((25, 1e-7), (50, 1e-9), (100, 1e-10), (200, 1e-11), (400, 1e-12), (800, 1e-13), (1600, 1e-14))
# Two tolerances each: with many control points Adam needs the small one, on easy problems it wastes time.
_SPLINES = tuple((4 * 2**k, 10.0**-t) for k in range(6) for t in (3 + k, 5 + k))
COMPETITORS = {
    c.name: c
    for c in (
        Competitor("scipy_bvp", ScipyBvp, tuple((25, 10.0**-k) for k in (1, 2, 3, 4, 5, 6, 8))),
        Competitor("georce", Georce, _STEPS),
        Competitor("georce_nested", Georce, _STEPS, nested=True),
        Competitor("georce_lowrank", LowRankGeorce, _STEPS, only=SteinMetric),
        Competitor("georce_lowrank_nested", LowRankGeorce, _STEPS, nested=True, only=SteinMetric),
        Competitor("georce_conformal_nested", ConformalGeorce, _STEPS, nested=True, only=ConformalMetric),
        Competitor("lbfgs", LBFGS, _DECREASES),
        Competitor("lbfgs_nested", LBFGS, _DECREASES, nested=True),
        Competitor("adam_spline", AdamSpline, _SPLINES),
        Competitor(
            "geomstats",
            Geomstats,
            _DECREASES,
            package="geomstats",
            max_dimension=2,
            reason="geomstats is run in the plane only",
        ),
        Competitor(
            "finslerax", Finslerax, tuple((n, 1e-6) for n in (25, 50, 100, 200, 400, 800, 1600)), package="finslerax"
        ),
    )
}


def advance(method: Any, state: Any, deadline: float, start: str) -> Solved:
    """A solve from ``state``; if it fails, or if ``start`` is "continuation", again along a continuation in strength.

    With "auto" the first may use up to a half of the time that is left.
    """
    problem, clock = method.problem, method.clock
    solved, note = None, ""
    if start != "continuation":
        limit = deadline if start == "direct" else (clock.now() + deadline) / 2
        try:
            solved = method.solve(problem.strength, state, limit)
            note = "" if solved.converged else f"direct: {solved.note or NOT_CONVERGED}"
        except OutOfTime:
            if start == "direct":
                raise
            note = f"direct: {OUT_OF_TIME}"
        if start == "direct" or (solved is not None and solved.converged):
            return solved
    iterations = 0 if solved is None else solved.iterations
    direct = solved
    for strength in continuation(problem.strength):
        try:
            # An unfinished solve on the way may still be the better start.
            solved = method.solve(strength, state, deadline)
        except OutOfTime:
            if direct is None:
                raise
            # Better the unfinished direct solve than nothing.
            return Solved(direct.state, False, iterations, f"{note}; continuation: {OUT_OF_TIME}")
        iterations += solved.iterations
        state = solved.state
    return Solved(state, solved.converged, iterations, "; ".join(filter(None, (note, "continuation", solved.note))))


def run(competitor: Competitor, problem: Problem, index: int, budget: float = 60, start: str = "auto") -> Attempt:
    """One setting of a competitor on a problem; ``start`` is "auto", "direct" or "continuation" (see `advance`)."""
    setting = competitor.settings[index]
    label, clock = f"{setting[0]}, {setting[1]:.0e}", Clock()
    result = Attempt(competitor.name, label, FAILED)
    if competitor.package is not None and importlib.util.find_spec(competitor.package) is None:
        return dataclasses.replace(result, status=NOT_INSTALLED, note=competitor.package)
    if not isinstance(problem.metric, competitor.only):
        return dataclasses.replace(result, status=NOT_TRIED, note=f"it is for {competitor.only.__name__}s")
    if competitor.max_dimension is not None and problem.d > competitor.max_dimension:
        return dataclasses.replace(result, status=NOT_TRIED, note=competitor.reason)

    def solve(methods):
        began = clock.now()
        deadline = began + budget
        solved = advance(methods[0], methods[0].start(), deadline, start)
        iterations = solved.iterations
        for method in methods[1:]:
            solved = advance(method, method.refine(solved.state), deadline, "direct")
            iterations += solved.iterations
        return dataclasses.replace(solved, iterations=iterations), clock.now() - began

    try:
        ladder = competitor.settings[: index + 1] if competitor.nested else (setting,)
        methods = [competitor.method(problem, each, clock) for each in ladder]
        solved, seconds = solve(methods)
        times = [seconds]
        if seconds < _QUICK_SECONDS:
            # The first run may have paid for more than compiling, and short ones are easily disturbed.
            times = [solve(methods)[1] for _ in range(3 if seconds > _SHORT_SECONDS else 15)]
        length, rule = methods[-1].lengths(solved.state)
    except OutOfTime:
        return dataclasses.replace(result, status=OUT_OF_TIME, seconds=budget, compile_seconds=clock.compile_seconds)
    except MemoryError as error:
        return dataclasses.replace(result, status=OUT_OF_MEMORY, note=str(error)[:200])
    except Exception as error:
        memory = "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower()
        note = f"{type(error).__name__}: {error}"[:200]
        return dataclasses.replace(result, status=OUT_OF_MEMORY if memory else FAILED, note=note)
    status = CONVERGED if solved.converged else NOT_CONVERGED
    if not np.isfinite(length):
        status, length, rule = NOT_FINITE, None, None
    return dataclasses.replace(
        result,
        status=status,
        length=length,
        rule=rule,
        seconds=float(np.median(times)),
        compile_seconds=clock.compile_seconds,
        iterations=solved.iterations,
        repeats=len(times),
        note=solved.note,
    )


def attempts(name: str, problem: Problem, budget: float = 60, start: str = "auto") -> Iterator[Attempt]:
    """Every setting of the competitor ``name`` in turn, up to the first that runs out of time or memory."""
    competitor = COMPETITORS[name]
    for index in range(len(competitor.settings)):
        attempt = run(competitor, problem, index, budget, start)
        yield attempt
        if attempt.status in _HOPELESS or (attempt.seconds or 0) >= budget:
            return


def _work(connection: Any, name: str, problem_name: str, budget: float, start: str, cache: Any, memory: int) -> None:
    """The child of `isolated`: sends attempts, then None."""
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    (problem,) = problems([problem_name], cache)
    connection.send("ready")
    for attempt in attempts(name, problem, budget, start):
        connection.send(attempt)
    connection.send(None)


def isolated(
    name: str,
    problem_name: str,
    budget: float = 60,
    start: str = "auto",
    cache: str | pathlib.Path | None = None,
    memory: int = 8 * 2**30,
    grace: float = 60,
) -> Iterator[Attempt]:
    """`attempts` in a process of its own, with at most ``memory`` bytes, ended if a setting takes too long.

    That is after twice the ``budget`` plus ``grace`` seconds, for compiling and for repeats. A factorisation or a
    compiled loop cannot be stopped from within. Build `problems` once before, so that what they keep in ``cache`` is
    there.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_work, args=(theirs, name, problem_name, budget, start, cache, memory), daemon=True)
    child.start()
    theirs.close()
    settings = iter(COMPETITORS[name].settings)
    try:
        while True:
            if not ours.poll(2 * budget + grace):
                status, note = OUT_OF_TIME, f"ended after {2 * budget + grace:.0f} s with compiling"
                break
            message = ours.recv()
            if message is None:
                return
            if message != "ready":
                next(settings)
                yield message
    except EOFError:
        child.join()
        # XLA and SuperLU end the process when an allocation fails: by abort, or by a signal for a null pointer.
        killed = child.exitcode in (-6, -9, -11)
        status, note = OUT_OF_MEMORY if killed else FAILED, f"the process ended with code {child.exitcode}"
    finally:
        child.kill()
        child.join()
        ours.close()
    setting = next(settings)
    yield Attempt(name, f"{setting[0]}, {setting[1]:.0e}", status, seconds=budget, note=note)


def show(attempt: Attempt, reference: float | None) -> str:
    """One line of the table."""

    def number(value, form):
        return "-" if value is None else format(value, form)

    def error(value):
        return "-" if value is None or reference is None else f"{value / reference - 1:+.1e}"

    return (
        f"{attempt.competitor:22}{attempt.setting:14}{number(attempt.length, '.9f'):>14}{error(attempt.length):>10}"
        f"{error(attempt.rule):>10}{number(attempt.seconds, '.4f'):>10}{number(attempt.compile_seconds, '.2f'):>9}"
        f"{number(attempt.iterations, 'd'):>7}  {attempt.status}{', ' + attempt.note if attempt.note else ''}"
    )


def main():
    """Print the table of one problem."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = (*NAMES, *OTHER_METRICS)
    parser.add_argument("--problem", default="three_modes", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--only", nargs="+", choices=COMPETITORS, default=list(COMPETITORS), help="competitors to run")
    parser.add_argument("--budget", type=float, default=60, help="seconds for one solve")
    parser.add_argument("--start", default="auto", choices=("auto", "direct", "continuation"))
    parser.add_argument("--isolate", action="store_true", help="run each in a process of its own, with hard limits")
    parser.add_argument("--cache", type=pathlib.Path, help="folder that keeps the model of the digits")
    parser.add_argument("--reference", type=float, help="length to compare with, if it is known better than here")
    options = parser.parse_args()
    (problem,) = problems([options.problem], options.cache)
    reference = options.reference or problem.length or reference_length(problem)
    print(
        f"{problem.name}: d {problem.d}, strength {problem.strength:.4g}, Euclid {problem.euclidean:.6f}, {reference=}"
    )
    columns = {"length": 14, "error": 10, "midpoint": 10, "seconds": 10, "compile": 9, "steps": 7}
    print(f"{'competitor':22}{'setting':14}" + "".join(f"{c:>{width}}" for c, width in columns.items()))
    for name in options.only:
        if options.isolate:
            found = isolated(name, problem.name, options.budget, options.start, options.cache)
        else:
            found = attempts(name, problem, options.budget, options.start)
        began, kept = time.perf_counter(), []
        for attempt in found:
            kept.append(attempt)
            print(show(attempt, reference), flush=True)
        best = [reached(kept, reference, target) for target in (1e-4, 1e-6, 1e-8)] if reference else []
        times = ", ".join("-" if a is None else f"{a.seconds:.4f} s" for a in best)
        print(f"{name}: 1e-4, 1e-6, 1e-8 in {times}; all took {time.perf_counter() - began:.0f} s\n", flush=True)


if __name__ == "__main__":
    main()
