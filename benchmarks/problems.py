"""The problems of the main benchmark: a score, a strength and two points each, and reference lengths where known.

Everything is in float64. Names: `three_modes`, `digits`, `mixture-D` and `mlp-D` for D in `DIMENSIONS`, and
`ring-SIGMA-STRENGTH` for SIGMA in 0.3, 0.1 and STRENGTH in 1, 10, 1000: all in the Stein metric. `OTHER_METRICS` are
problems in other ones: `power-NAME` and `jacobian-NAME`, of a score above or of a curve in R^D, and `decoder-D`.
"""

import contextlib
import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from foundation import network, random_network
from scipy.integrate import solve_bvp
from score_jacobian import NOISE_LEVEL, closed_curve

from scoregeo import (
    AbstractMetric,
    ConformalMetric,
    FunctionScore,
    PullbackMetric,
    ScoreJacobianMetric,
    SteinMetric,
    datasets,
)
from scoregeo.diffusion import DiffusionModel, FitConfig, WarmupEMA, fit
from scoregeo.metrics.conformal import PowerFactor
from scoregeo.scores import KernelDensityScore

jax.config.update("jax_enable_x64", True)

DIMENSIONS = (2, 16, 64, 256, 784, 3072)
RINGS = tuple((sigma, strength) for sigma in (0.3, 0.1) for strength in (1, 10, 1000))
NAMES = (
    "three_modes",
    *(f"mixture-{d}" for d in DIMENSIONS),
    *(f"mlp-{d}" for d in DIMENSIONS),
    *(f"ring-{sigma}-{strength}" for sigma, strength in RINGS),
    "digits",
)
OTHER_METRICS = (
    *("power-three_modes", "power-curve-10", "power-curve-256", "power-digits"),
    *("jacobian-three_modes", "jacobian-curve-10", "jacobian-digits"),
    *("decoder-2", "decoder-8", "decoder-64"),
)
REFERENCE_MAX_DIMENSION = 16  # beyond it the dense Jacobians of `solve_bvp` at tolerance 1e-10 take minutes
DIGITS_SIGMA = 0.5
DIGITS_CONTRAST = 30.0
CONTINUATION_STEPS = 10


@dataclasses.dataclass(frozen=True)
class Problem:
    """Find the geodesic of ``family(score, strength)`` from ``x`` to ``y``, both of shape ``(d,)``.

    ``score`` is a pytree, whatever ``family`` is made of besides a strength; a small strength is a metric that is easy.
    ``length`` is that of the geodesic where it is known from elsewhere.
    """

    name: str
    d: int
    score: Any
    strength: float
    x: np.ndarray
    y: np.ndarray
    length: float | None = None
    family: Callable[[Any, Any], AbstractMetric] = SteinMetric

    @property
    def metric(self) -> AbstractMetric:
        """The metric of the problem."""
        return self.family(self.score, self.strength)

    def squared_norm(self, score: Any, strength: Any, x: jax.Array, v: jax.Array) -> jax.Array:
        """``v^T G(x) v`` in the metric of these, as traced code has them."""
        return self.family(score, strength).at(x).squared_norm(v)

    @property
    def euclidean(self) -> float:
        """Length of the straight line in Euclidean space."""
        return float(np.linalg.norm(self.y - self.x))


def three_modes() -> Problem:
    """The reference problem: three equal Gaussians in the plane, with at least two local geodesics (5.06 and 7.68)."""
    modes = np.array([[-1.5, 0.0], [1.5, 0.0], [0.0, 1.5]])
    ends = np.array([-1.5, 0.2]), np.array([1.4, -0.3])
    return Problem("three_modes", 2, KernelDensityScore(modes, 0.5), 1.0, *ends, length=5.0550293850979)


def mixture(d: int) -> Problem:
    """Five isotropic Gaussians around random means, equally hard in every dimension.

    Means drawn from N(0, I) are sqrt(2 d) apart. The variance d / 8 keeps their overlap: half-way between two modes the
    log density of either is |m_i - m_j|^2 / (8 variance) = 2 below its top. With it |s|^2 falls as 1 / d, so the
    strength d / 2 keeps strength |s|^2. The end points lie half a standard deviation (in norm) from two of the modes.
    """
    keys = jax.random.split(jax.random.key(5), 2)
    means = np.asarray(jax.random.normal(keys[0], (5, d)))
    sd = (d / 8) ** 0.5
    offsets = np.asarray(jax.random.normal(keys[1], (2, d)))
    x, y = means[:2] + 0.5 * sd * offsets / np.linalg.norm(offsets, axis=-1, keepdims=True)
    return Problem(f"mixture-{d}", d, KernelDensityScore(means, sd), d / 2, x, y)


def mlp(d: int) -> Problem:
    """A random network minus x, not a gradient, with the strength 1 of `foundation`."""
    weights, x, y = random_network(d)
    return Problem(f"mlp-{d}", d, FunctionScore(network, *weights), 1.0, np.asarray(x), np.asarray(y))


def ring(sigma: float, strength: float) -> Problem:
    """200 Gaussians of standard deviation ``sigma`` on the unit circle; the straight line cuts the corner.

    Large strengths and small ``sigma`` force the path along the ridge: stiff.
    """
    angle = 2 * np.pi * np.arange(200) / 200
    circle = np.stack([np.cos(angle), np.sin(angle)], -1)
    x, y = 1.02 * np.array([np.cos(0.5), np.sin(0.5)]), 0.97 * np.array([np.cos(2.5), np.sin(2.5)])
    return Problem(f"ring-{sigma}-{strength}", 2, KernelDensityScore(circle, sigma), float(strength), x, y)


def digits(cache: pathlib.Path) -> Problem:
    """A diffusion score of scikit-learn's digits at noise level 0.5, between two images that it was not trained on.

    The model (half a minute of training) is kept in ``cache``. The strength makes the median of strength |s|^2 over the
    training images `DIGITS_CONTRAST`.
    """
    points = np.asarray(datasets.digits().points)
    train, (x, y) = points[:1500], points[[1501, 1508]].astype(np.float64)
    folder = cache / "digits-model"
    if not (folder / "config.json").exists():
        # In float32: training in float64 takes twice as long and the model is what it is.
        config = FitConfig(steps=2000, batch_size=128, learning_rate=1e-3, width=128, depth=3, ema=WarmupEMA(0.995))
        fit(train.astype(np.float32), config, progress=False).save(folder)
    score = DiffusionModel.load(folder).score_at(DIGITS_SIGMA)
    squares = jnp.sum(jax.vmap(score)(jnp.asarray(train[:500], jnp.float64)) ** 2, -1)
    return Problem("digits", 64, score, float(DIGITS_CONTRAST / jnp.median(squares)), x, y)


def power(base: Problem, data: np.ndarray) -> Problem:
    """The same ends in a power of the density, in which leaving ``data`` costs 1000 times as much (`ConformalMetric`).

    A strength is the exponent.
    """
    factor = ConformalMetric.power(base.score, jnp.asarray(data), 1e3).log_factor

    def family(score, exponent):
        return ConformalMetric(PowerFactor(factor.ratio, score[0], jnp.asarray(exponent), score[1]))

    made_of = (factor.score, factor.energy)
    name, strength = f"power-{base.name}", float(factor.exponent)
    return dataclasses.replace(base, name=name, score=made_of, strength=strength, family=family, length=None)


def jacobian(base: Problem, noise_level: float) -> Problem:
    """The same ends in the score Jacobian metric of strength 100."""

    def family(score, strength):
        return ScoreJacobianMetric(*score, strength)

    made_of, name = (base.score, np.float64(noise_level)), f"jacobian-{base.name}"
    return dataclasses.replace(base, name=name, score=made_of, strength=100.0, family=family, length=None)


def curve(d: int) -> Problem:
    """Two points of a closed curve in R^d, a quarter turn apart, and the exact score of data along it."""
    points = closed_curve(np.linspace(0, 2 * np.pi, 240, endpoint=False), d=d)
    x, y = closed_curve(np.array([0.3, 0.3 + np.pi / 2]), d=d)
    return Problem(f"curve-{d}", d, KernelDensityScore(points, NOISE_LEVEL), 100.0, x, y)


def decoder(d: int) -> Problem:
    """Two random latents of a random decoder to R^784, in the metric that it pulls back (with a floor of 0.1).

    A strength is a factor of what is pulled back; it is one.
    """
    keys = jax.random.split(jax.random.key(7), 5)
    first = 2 * jax.random.normal(keys[0], (d, 128)) / d**0.5
    weights = first, jax.random.normal(keys[1], (128,)), jax.random.normal(keys[2], (128, 784)) / 128**0.5

    def decode(z, first, bias, second, size):
        return size * jnp.tanh(z @ first + bias) @ second

    def family(weights, strength):
        return PullbackMetric(decode, *weights, jnp.sqrt(strength), floor=0.1)

    x, y = (np.asarray(jax.random.normal(key, (d,))) for key in keys[3:])
    return Problem(f"decoder-{d}", d, weights, 1.0, x, y, family=family)


def _data_of(base: Problem) -> np.ndarray:
    """Points that the score of a problem is of."""
    if base.name == "digits":
        return np.asarray(datasets.digits().points, np.float64)[:1500]
    return np.asarray(base.score.data)


def problems(names: Iterable[str] | None = None, cache: str | pathlib.Path | None = None) -> list[Problem]:
    """The problems of these names, by default those in `NAMES`.

    ``cache`` is the folder that keeps the trained model of the digits.

    Raises ``ValueError`` for a name that is not in `NAMES` or `OTHER_METRICS`.
    """
    cache = pathlib.Path(tempfile.gettempdir()) / "scoregeo-benchmarks" if cache is None else pathlib.Path(cache)
    chosen, known = list(NAMES if names is None else names), (*NAMES, *OTHER_METRICS)
    if unknown := sorted(set(chosen) - set(known)):
        raise ValueError(f"there are no problems {unknown}; there are {list(known)}")

    def base_of(*name):
        return curve(int(name[1])) if name[0] == "curve" else problems(["-".join(name)], cache)[0]

    def in_power(*name):
        base = base_of(*name)
        return power(base, _data_of(base))

    def in_jacobian(*name):
        base = base_of(*name)
        return jacobian(base, DIGITS_SIGMA if base.name == "digits" else float(base.score.bandwidth))

    builders = {"mixture": lambda d: mixture(int(d)), "mlp": lambda d: mlp(int(d))}
    builders |= {"power": in_power, "jacobian": in_jacobian, "decoder": lambda d: decoder(int(d))}
    builders |= {"three_modes": three_modes, "digits": lambda: digits(cache)}
    builders["ring"] = lambda sigma, strength: ring(float(sigma), int(strength))
    return [builders[name.split("-")[0]](*name.split("-")[1:]) for name in chosen]


class Clock:
    """Seconds of solving, with the seconds of compiling kept apart.

    ``timer``: of the wall; a benchmark that must share its machine may set it to ``time.process_time``.
    """

    timer = staticmethod(time.perf_counter)

    def __init__(self):
        """Start it."""
        self.compile_seconds = 0.0

    def now(self) -> float:
        """A time that stands still while `Kernel` compiles."""
        return self.timer() - self.compile_seconds


class Kernel:
    """``function(score, strength, *arrays)`` of a problem, compiled ahead of time for every new set of shapes.

    Returns NumPy arrays. The score's leaves are arguments of the compiled function: as constants, XLA would spend the
    compile time folding them.
    """

    def __init__(self, function: Callable, problem: Problem, clock: Clock):
        """Nothing is compiled before the first call."""
        self.leaves, treedef = jax.tree.flatten(problem.score)
        self.clock, self.compiled = clock, {}
        self.jitted = jax.jit(lambda leaves, strength, *arrays: function(treedef.unflatten(leaves), strength, *arrays))

    def __call__(self, strength: float, *arrays):
        """The values at these arguments; waits for them."""
        arguments = (self.leaves, np.float64(strength), *map(np.asarray, arrays))
        shapes = tuple(a.shape for a in arguments[2:])
        if shapes not in self.compiled:
            start = self.clock.timer()
            self.compiled[shapes] = self.jitted.lower(*arguments).compile()
            self.clock.compile_seconds += self.clock.timer() - start
        return jax.tree.map(np.asarray, self.compiled[shapes](*arguments))


class OutOfTime(Exception):
    """A solve passed its deadline."""


class GeodesicEquation:
    """The geodesic equation as the first-order system z = (x, v) of ``scipy.integrate.solve_bvp``, with Jacobian."""

    def __init__(self, problem: Problem, clock: Clock):
        """Of a problem; compile time goes to the clock."""
        self.problem, self.clock, self.calls = problem, clock, 0
        self.strength, self.deadline = problem.strength, np.inf

        def acceleration(score, strength, z):
            x, v = jnp.split(z, 2)
            return problem.family(score, strength).acceleration(x, v)

        over_nodes = (None, None, 0)
        self.acceleration = Kernel(jax.vmap(acceleration, over_nodes), problem, clock)
        self.jacobian = Kernel(jax.vmap(jax.jacfwd(acceleration, 2), over_nodes), problem, clock)

    def _at_nodes(self, kernel: Kernel, z: np.ndarray) -> np.ndarray:
        """``kernel`` at the columns of ``z``, padded to a power of two: meshes change, shapes should not."""
        if self.clock.now() > self.deadline:
            raise OutOfTime
        self.calls += 1
        m = z.shape[1]
        padded = np.pad(z.T, ((0, 2 ** int(np.ceil(np.log2(m))) - m), (0, 0)), mode="edge")
        return np.moveaxis(kernel(self.strength, padded)[:m], 0, -1)

    def right_side(self, t: np.ndarray, z: np.ndarray) -> np.ndarray:
        """z' at the columns of ``z``, shape ``(2 d, m)``."""
        return np.concatenate([z[self.problem.d :], self._at_nodes(self.acceleration, z)])

    def right_side_jacobian(self, t: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Its Jacobian, shape ``(2 d, 2 d, m)``."""
        d, m = self.problem.d, z.shape[1]
        top = np.broadcast_to(np.eye(d, 2 * d, k=d)[..., None], (d, 2 * d, m))
        return np.concatenate([top, self._at_nodes(self.jacobian, z)])

    def solve(self, strength, mesh, values, tolerance, deadline=np.inf, max_nodes=20_000):
        """SciPy's result for ``strength``, from ``values`` ``(2 d, m)`` on ``mesh`` ``(m,)``."""
        p, d = self.problem, self.problem.d
        self.strength, self.deadline = strength, deadline
        start, end = np.eye(2 * d, 2 * d) * (np.arange(2 * d) < d)[:, None], np.eye(2 * d, 2 * d, k=-d)
        return solve_bvp(
            self.right_side,
            lambda a, b: np.concatenate([a[:d] - p.x, b[:d] - p.y]),
            mesh,
            values,
            fun_jac=self.right_side_jacobian,
            bc_jac=lambda a, b: (start, end),
            tol=tolerance,
            max_nodes=max_nodes,
        )

    def line(self, nodes: int = 25) -> tuple[np.ndarray, np.ndarray]:
        """The straight line on a uniform mesh, as ``(mesh, values)``."""
        t, p = np.linspace(0, 1, nodes), self.problem
        points = p.x + t[:, None] * (p.y - p.x)
        return t, np.concatenate([points.T, np.broadcast_to((p.y - p.x)[:, None], (p.d, nodes))])


def continuation(strength: float, steps: int = CONTINUATION_STEPS) -> np.ndarray:
    """Strengths from a thousandth of ``strength`` up to it, in equal ratios."""
    return strength * np.logspace(-3, 0, steps)


_BLOCK = 512  # points whose speed is computed at once: bounds memory, and one compiled shape serves every curve


@eqx.filter_jit
def _speeds(metric, points, velocities):
    """The speed in ``metric`` at every point, shape ``(n,)``."""

    return jax.vmap(metric.norm)(points, velocities)


def curve_length(problem: Problem, breaks: np.ndarray, evaluate: Callable, order: int = 5) -> float:
    """Length of a curve that is smooth between ``breaks`` ``(m,)``, by Gauss quadrature with ``order`` points a piece.

    ``evaluate(t)`` gives points and velocities ``(n, d)``. As this is the length of a curve between the two points, it
    cannot be below that of the shortest one by luck of the rule.
    """
    nodes, weights = np.polynomial.legendre.leggauss(order)
    half = np.diff(breaks)[:, None] / 2
    t = (breaks[:-1, None] + half * (1 + nodes)).ravel()
    weights = (half * weights).ravel()
    metric, total = problem.metric, 0.0
    for i in range(0, t.size, _BLOCK):
        piece = t[i : i + _BLOCK]
        # Weight zero at the padding.
        padded = np.pad(piece, (0, _BLOCK - piece.size), mode="edge")
        total += weights[i : i + _BLOCK] @ np.asarray(_speeds(metric, *evaluate(padded)))[: piece.size]
    return float(total)


def bvp_length(problem: Problem, result) -> float:
    """Length of the piecewise cubic curve in SciPy's ``result``."""
    velocity = result.sol.derivative()
    return curve_length(problem, result.x, lambda t: (result.sol(t)[: problem.d].T, velocity(t)[: problem.d].T))


def reference_length(problem: Problem, agreement: float = 1e-11, seconds: float = 30) -> float | None:
    """Length of the geodesic by SciPy's collocation, or None where that fails, takes too long, or d is above 16.

    The tolerance goes down from 1e-2 to 1e-10 until two lengths agree to a relative ``agreement``: the length is
    stationary at a geodesic, so it has twice the digits of the path, and meshes grow fast. Solved from the straight
    line and along a continuation in strength, ``seconds`` for each; of two different geodesics the shorter counts.
    """
    if problem.d > REFERENCE_MAX_DIMENSION:
        return None
    equation = GeodesicEquation(problem, Clock())
    found = []
    for strengths in ([problem.strength], continuation(problem.strength)):
        # On the way nothing is gained by more digits.
        stages = [(strength, 1e-2) for strength in strengths[:-1]]
        stages += [(problem.strength, 10.0**-k) for k in (2, 4, 6, 8, 10)]
        mesh, values = equation.line()
        previous, deadline = np.inf, equation.clock.now() + seconds
        with contextlib.suppress(OutOfTime):
            for strength, tolerance in stages:
                result = equation.solve(strength, mesh, values, tolerance, deadline, 20_000)
                if result.success:
                    mesh, values = result.x, result.y
                elif strength == problem.strength:
                    break
                if strength == problem.strength:
                    length = bvp_length(problem, result)
                    if abs(length - previous) < agreement * length:
                        found.append(length)
                        break
                    previous = length
    return min(found, default=None)
