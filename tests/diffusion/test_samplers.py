"""All samplers: the law of their samples under the exact score, their orders, and each against its published formulas.

For Gaussian data every step is affine, so mean and variance of the samples follow from a recursion of numbers; it is
written here from the papers, in their variables.
"""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial
import scipy.stats
from oracles import ExactMarginal, NotFinite

from scoregeo.diffusion import EDM, VP, ProbabilityFlow, ReverseSDE
from scoregeo.diffusion.sampling.base import sample_path
from scoregeo.diffusion.sampling.samplers import DDIM, AnnealedLangevin, DPMSolver, Heun, PredictorCorrector
from scoregeo.diffusion.schedules import SCHEDULES
from scoregeo.scores import GaussianScore

N = 1000
SAMPLERS = {
    "ProbabilityFlow": ProbabilityFlow(),
    "ReverseSDE": ReverseSDE(steps=128),
    "Heun": Heun(),
    "Heun with churn": Heun(steps=64, churn=20.0),
    "DDIM": DDIM(steps=128),
    "DDPM": DDIM(steps=128, eta=1.0),
    "DPMSolver": DPMSolver(steps=64),
    "PredictorCorrector": PredictorCorrector(steps=128),
    "AnnealedLangevin": AnnealedLangevin(steps=256, corrections=10, snr=0.3),
}
SHORT = {"EDM": EDM(sigma_min=0.01, sigma_max=20.0), "VP": VP(t_min=0.01)}


def in_precision(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, tree)


def energy_p_value(x, y):
    """Of the energy distance between two samples of equal size, from 499 permutations (Szekely & Rizzo 2013)."""
    both = np.concatenate([np.asarray(x, float), np.asarray(y, float)])
    distances = scipy.spatial.distance.cdist(both, both)
    signs = np.repeat([1.0, -1.0], len(x))
    rng = np.random.default_rng(0)
    shuffled = np.stack([rng.permutation(signs) for _ in range(499)], 1)
    # The statistic is 2 mean|x - y| - mean|x - x'| - mean|y - y'|, up to a factor.
    null = -np.sum(shuffled * (distances @ shuffled), 0)
    return (1 + np.sum(null >= -(signs @ distances @ signs))) / 500


def projection_p_value(x, mixture):
    """Kolmogorov-Smirnov against the exact law of 6 projections, corrected for their number (Bonferroni)."""
    p_values = []
    for angle in np.arange(6) * np.pi / 6:
        direction = np.array([math.cos(angle), math.sin(angle)])
        means = np.asarray(mixture.means) @ direction
        spreads = np.sqrt(np.einsum("i,kij,j->k", direction, np.asarray(mixture.covs), direction))

        def cdf(q, means=means, spreads=spreads):
            return scipy.stats.norm.cdf(q[:, None], means, spreads) @ np.asarray(mixture.weights)

        p_values.append(scipy.stats.ks_1samp(np.asarray(x, float) @ direction, cdf).pvalue)
    return 6 * min(p_values)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["EDM-float64", "VP-float32"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_exact_score_gives_the_exact_law(name, case, modes):
    mixture, sampler = modes[1], SAMPLERS[name]
    schedule, dtype = (EDM(), "float64") if case == "EDM-float64" else (VP(), "float32")
    score = ExactMarginal(in_precision(mixture, dtype), schedule)
    samples = sample_path(sampler, score, schedule, jnp.zeros(2, dtype), jax.random.key(0), 3 * N)
    assert samples.dtype == dtype
    true = mixture.sample(jax.random.key(1), N)
    np.testing.assert_allclose(samples.mean(0), jnp.zeros(2), atol=4 / np.sqrt(3 * N))
    np.testing.assert_allclose(jnp.cov(samples.T), jnp.eye(2), atol=0.1)
    assert energy_p_value(samples[:N], true) > 0.01
    assert projection_p_value(samples, mixture) > 0.01


@pytest.mark.slow
def test_the_two_sample_tests_see_a_small_shift(modes):
    """And are calm under their null hypothesis."""
    true, other = (modes[1].sample(jax.random.key(i), 3 * N) for i in (1, 2))
    assert energy_p_value(other[:N], true[:N]) > 0.01
    assert energy_p_value(other[:N] + 0.15, true[:N]) < 0.01
    assert projection_p_value(other, modes[1]) > 0.01
    assert projection_p_value(other + 0.15, modes[1]) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SHORT.values(), ids=SHORT)
@pytest.mark.parametrize(("kind", "order"), [(Heun, 2), (DDIM, 1), (DPMSolver, 2)])
def test_deterministic_samplers_converge_at_their_order(kind, order, schedule):
    """To the flow of N(m, c^2): x_t = alpha m + sqrt(alpha^2 c^2 + sigma^2) z, with the same z at all times."""
    mean, spread = jnp.array([0.5, -0.3]), 0.7
    score = ExactMarginal(GaussianScore(mean, spread**2 * jnp.eye(2)), schedule)
    x = jnp.array([1.0, -2.0])
    moments = [
        (schedule.alpha(t) * mean, jnp.sqrt(schedule.alpha(t) ** 2 * spread**2 + schedule.sigma(t) ** 2))
        for t in (schedule.t_max, schedule.t_min)
    ]
    expected = moments[1][0] + moments[1][1] * (x - moments[0][0]) / moments[0][1]

    def error(steps):
        return float(jnp.abs(kind(steps=steps).solve(score, schedule, x, jax.random.key(0))[0] - expected).max())

    errors = np.array([error(steps) for steps in (64, 128, 256)])
    assert errors[-1] < (0.02 if order == 1 else 1e-3)
    np.testing.assert_allclose(np.log2(errors[:-1] / errors[1:]), order, atol=0.15)


@pytest.mark.parametrize("kind", SCHEDULES.values(), ids=SCHEDULES)
def test_every_schedule_has_the_flow_of_the_closed_form(kind):
    schedule, spread = kind(), 0.7
    score = ExactMarginal(GaussianScore(jnp.zeros(2), spread**2 * jnp.eye(2)), schedule)
    before, after = (
        jnp.sqrt(schedule.alpha(t) ** 2 * spread**2 + schedule.sigma(t) ** 2)
        for t in (jnp.asarray(schedule.t_max), jnp.asarray(schedule.t_min))
    )
    x = jnp.array([1.0, -2.0])
    solved, _ = DPMSolver(steps=256).solve(score, schedule, x, jax.random.key(0))
    np.testing.assert_allclose(solved, after / before * x, rtol=2e-3)


def ddim_maps(alpha, sigma, variance, eta):
    """(factor, variance of new noise) of each step: Song, Meng & Ermon, equations 12 and 16. They have sigma^2 = 1 -
    alpha^2; with sigma^2 - (alpha sigma'/alpha')^2 for 1 - (alpha/alpha')^2 it is so for any schedule."""
    for i in range(len(alpha) - 1):
        (a, s), (b, q) = (alpha[i], sigma[i]), (alpha[i + 1], sigma[i + 1])
        data = a * variance / (a**2 * variance + s**2)  # E[x_0 | x] = data x for N(0, variance)
        noise = (1 - a * data) / s
        new = (eta * q / s) ** 2 * (s**2 - (a * q / b) ** 2)
        yield b * data + math.sqrt(q**2 - new) * noise, new


def moments_of_path(maps, variance):
    """The variance after all maps x -> factor x + sqrt(new) z."""
    for factor, new in maps:
        variance = factor**2 * variance + new
    return variance


def langevin_maps(level, variance, snr, steps):
    """Of y: y + e S + sqrt(2 e) z with e = 2 (snr r)^2 and S = -y/(variance + r^2)."""
    size = 2 * (snr * level) ** 2
    return [(1 - size / (variance + level**2), 2 * size)] * steps


def heun_maps(levels, variance, sampler):
    """Karras et al., Algorithm 2, for the denoiser variance y/(variance + r^2)."""
    for r, after in itertools.pairwise(levels):
        gamma = min(sampler.churn / sampler.steps, math.sqrt(2) - 1)
        gamma = gamma if sampler.churn_min <= r <= sampler.churn_max else 0.0
        raised = r + gamma * r
        slope = (1 - variance / (variance + raised**2)) / raised
        euler = 1 + (after - raised) * slope
        slope_after = (1 - variance / (variance + after**2)) / after * euler
        factor = 1 + (after - raised) * (slope + slope_after) / 2
        yield factor, factor**2 * sampler.churn_noise**2 * (raised**2 - r**2)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SHORT.values(), ids=SHORT)
@pytest.mark.parametrize(
    "sampler",
    [
        Heun(steps=6, churn=1.5),
        Heun(steps=6, churn=50.0, churn_min=0.05, churn_max=3.0, churn_noise=1.3),
        DDIM(steps=6, eta=1.0),
        DDIM(steps=6, eta=0.6),
        PredictorCorrector(steps=6, corrections=2, snr=0.3),
        AnnealedLangevin(steps=6, corrections=3, snr=0.4),
    ],
    ids=["churn", "churn within levels", "DDPM", "eta", "PredictorCorrector", "AnnealedLangevin"],
)
def test_random_steps_have_the_published_variance(sampler, schedule):
    """Few and large steps, started from one point: the variance is far from that of the data, and as it should be."""
    variance, n = 0.6, 40_000
    levels = np.asarray(schedule.sampling_levels(7, jnp.float64), float)
    times = [schedule.time_at(level) for level in levels]
    alpha = np.array([float(schedule.alpha(t)) for t in times])
    if isinstance(sampler, Heun):
        maps = list(heun_maps(levels, variance, sampler))
    elif isinstance(sampler, DDIM):
        maps = list(ddim_maps(alpha, levels * alpha, variance, sampler.eta))
    else:
        predictor = ddim_maps(np.ones(7), levels, variance, 1.0)
        maps = []
        for level, step in zip(levels[1:], predictor, strict=True):
            maps += [step] if isinstance(sampler, PredictorCorrector) else []
            maps += langevin_maps(level, variance, sampler.snr, sampler.corrections)
    scale = 1.0 if isinstance(sampler, DDIM) else alpha[-1]  # the others are published for alpha = 1
    x = jnp.array([3.0])
    score = ExactMarginal(GaussianScore(jnp.zeros(1), variance * jnp.eye(1)), schedule)
    keys = jax.random.split(jax.random.key(0), n)
    ends = jax.jit(jax.vmap(lambda key: sampler.solve(score, schedule, x, key)[0]))(keys)
    factor = math.prod(factor for factor, _ in maps)
    start = float(x[0]) / (1.0 if isinstance(sampler, DDIM) else alpha[0])
    expected = moments_of_path(maps, 0.0) * scale**2
    assert expected > 1e-6
    assert abs(float(ends.mean()) - factor * start * scale) < 5 * math.sqrt(expected / n)
    assert abs(float(ends.var()) / expected - 1) < 5 * math.sqrt(2 / n)


@pytest.mark.slow
def test_dpm_solver_is_the_published_multistep_formula(modes):
    """Lu et al. 2022, Algorithm 2, in x, alpha, sigma and lambda = log(alpha/sigma), for a score that is not linear."""
    schedule = SHORT["VP"]
    score = ExactMarginal(modes[1], schedule)
    levels = schedule.sampling_levels(6, jnp.float64)
    times = jnp.stack([schedule.time_at(level) for level in levels])
    alpha, sigma = jax.vmap(schedule.alpha)(times), jax.vmap(schedule.sigma)(times)
    lam = jnp.log(alpha / sigma)
    x = jnp.array([0.4, -1.1])
    solved, _ = DPMSolver(steps=5).solve(score, schedule, x, jax.random.key(0))
    past = None
    for i in range(1, 6):
        data = (x + sigma[i - 1] ** 2 * score(x, times[i - 1])) / alpha[i - 1]
        h = lam[i] - lam[i - 1]
        mixed = data
        if past is not None:
            r = (lam[i - 1] - lam[i - 2]) / h
            mixed = (1 + 1 / (2 * r)) * data - past / (2 * r)
        x = sigma[i] / sigma[i - 1] * x - alpha[i] * jnp.expm1(-h) * mixed
        past = data
    np.testing.assert_allclose(solved, x, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "random"),
    [
        (Heun(steps=8), False),
        (Heun(steps=8, churn=4.0), True),
        (Heun(steps=8, churn=4.0, churn_min=100.0), False),
        (DDIM(steps=8), False),
        (DDIM(steps=8, eta=0.5), True),
        (DPMSolver(steps=8), False),
        (PredictorCorrector(steps=8), True),
        (AnnealedLangevin(steps=8), True),
    ],
)
def test_only_churn_eta_and_langevin_steps_are_random(sampler, random, modes):
    schedule = EDM()
    score, x = ExactMarginal(modes[1], schedule), jnp.array([30.0, -50.0])
    solve = jax.jit(lambda key: sampler.solve(score, schedule, x, key)[0])
    first, again, other = (solve(jax.random.key(i)) for i in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert bool(jnp.abs(first - other).max() > 1e-3) == random
    if isinstance(sampler, Heun) and not random:
        deterministic, _ = Heun(steps=8).solve(score, schedule, x, jax.random.key(2))
        np.testing.assert_allclose(first, deterministic, rtol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [Heun(steps=16), DDIM(steps=16), DPMSolver(steps=16)], ids=["Heun", "DDIM", "DPM"])
@pytest.mark.parametrize("schedule", [EDM(), VP()], ids=["EDM", "VP"])
def test_single_precision_follows_double(sampler, schedule, modes):
    x = schedule.sigma(jnp.asarray(schedule.t_max)) * jax.random.normal(jax.random.key(3), (50, 2))
    ends = []
    for dtype in ("float64", "float32"):
        score = ExactMarginal(in_precision(modes[1], dtype), schedule)
        solve = jax.jit(jax.vmap(lambda x, score=score: sampler.solve(score, schedule, x, jax.random.key(0))[0]))
        ends.append(solve(x.astype(dtype)))
        assert ends[-1].dtype == dtype
    # Between the modes the flow multiplies differences: the typical error is small, the largest moderate.
    error = jnp.abs(ends[1] - ends[0])
    assert jnp.median(error) < 1e-5
    assert error.max() < 2e-2


@pytest.mark.parametrize("sampler", [Heun(steps=5), DDIM(steps=5), DPMSolver(steps=5)], ids=["Heun", "DDIM", "DPM"])
def test_samples_have_gradients(sampler, modes):
    """Reverse mode through the path, with respect to the start and to what the score depends on."""
    schedule = SHORT["EDM"]

    def end(x, scale):
        mixture = eqx.tree_at(lambda m: m.means, modes[1], scale * modes[1].means)
        return sampler.solve(ExactMarginal(mixture, schedule), schedule, x, jax.random.key(0))[0].sum()

    x, v, h = jnp.array([6.0, -9.0]), jnp.array([0.8, 0.6]), 1e-5
    gradient, slope = jax.jit(jax.grad(end, argnums=(0, 1)))(x, 1.1)
    end = jax.jit(end)
    np.testing.assert_allclose(gradient @ v, (end(x + h * v, 1.1) - end(x - h * v, 1.1)) / (2 * h), rtol=1e-6)
    np.testing.assert_allclose(slope, (end(x, 1.1 + h) - end(x, 1.1 - h)) / (2 * h), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [Heun(), DDIM(), DPMSolver(), PredictorCorrector(), AnnealedLangevin()])
def test_a_score_that_is_not_finite_is_reported_by_every_sampler(sampler):
    sampler = eqx.tree_at(lambda s: s.steps, sampler, 8)
    with pytest.raises(RuntimeError, match=r"7 of 7 samples failed: the score was not finite"):
        sample_path(sampler, NotFinite(), EDM(), jnp.zeros(2), jax.random.key(0), 7)
    under_jit = jax.jit(lambda: sample_path(sampler, NotFinite(), EDM(), jnp.zeros(2), jax.random.key(0), 7))
    assert jnp.isnan(under_jit()).all()


@pytest.mark.slow
def test_a_trained_model_samples_by_any_sampler(modes, trained):
    samples = trained.sample(jax.random.key(0), 2000, sampler=DPMSolver(steps=20))
    assert samples.dtype == jnp.float32
    np.testing.assert_allclose(samples.mean(0), jnp.zeros(2), atol=0.12)
    np.testing.assert_allclose(jnp.cov(samples.T), jnp.eye(2), atol=0.15)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        *[
            (lambda kind=kind: kind(steps=0), "`steps` must be an integer of at least 1, got 0")
            for kind in (Heun, DDIM, DPMSolver, PredictorCorrector, AnnealedLangevin)
        ],
        (lambda: Heun(steps=True), "`steps` must be an integer of at least 1, got True"),
        (lambda: Heun(churn=-1.0), "`churn` must be a number that is not negative, got -1.0"),
        (lambda: Heun(churn_min="0"), "`churn_min` must be a number that is not negative, got '0'"),
        (lambda: Heun(churn_noise=0), "`churn_noise` must be a number that is positive, got 0"),
        (lambda: Heun(churn_max=None), "`churn_max` must be a number, got None"),
        (lambda: Heun(churn_min=2.0, churn_max=1.0), "`churn_max` must be greater than `churn_min` = 2.0, got 1.0"),
        (lambda: DDIM(eta=1.5), r"`eta` must be a number that is in \[0, 1\], got 1.5"),
        (lambda: PredictorCorrector(corrections=0), "`corrections` must be an integer of at least 1, got 0"),
        (lambda: PredictorCorrector(snr=1.0), r"`snr` must be a number that is in \(0, 1\), got 1.0"),
        (lambda: AnnealedLangevin(corrections=1.5), "`corrections` must be an integer of at least 1, got 1.5"),
        (lambda: AnnealedLangevin(snr=float("nan")), r"`snr` must be a number that is in \(0, 1\), got nan"),
    ],
)
def test_settings_that_make_no_sense_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
