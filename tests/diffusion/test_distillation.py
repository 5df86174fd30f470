"""Students that copy a score, and the report of what a copy is worth."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from scoregeo import FunctionScore, GaussianMixtureScore, MatrixMetric, SpectralNewton
from scoregeo.comparison import CopyReport, evaluate_copy
from scoregeo.datasets import Standardization
from scoregeo.diffusion import MLP, Denoiser, DiffusionModel, FitConfig, LogNormalLevels, distill, fit
from scoregeo.diffusion.training.losses import Teacher, distillation_loss

QUICK = FitConfig(steps=20, chunk_steps=10, batch_size=32, width=8, depth=1, warmup_steps=2)


class Mixture:
    """A teacher that is no network."""

    dim = 2

    def __init__(self, center=(0.0, 0.0)):
        means = jnp.array([[-1.0, 0.0], [1.0, 0.0]]) + jnp.asarray(center)
        self.score = GaussianMixtureScore(jnp.full(2, 0.5), means, jnp.stack([0.1 * jnp.eye(2)] * 2))

    def score_at(self, sigma):
        return self.score.noised(1.0, sigma)


def swirl(x, sigma):
    return jnp.array([[-1.0, 2.0], [-2.0, -1.0]]) @ x / (1 + sigma**2)


@pytest.mark.slow
def test_the_loss_is_that_of_the_score_in_the_units_of_the_network(mlp):
    """Against the definition by full Jacobians; the teacher has curl."""
    denoiser = Denoiser(mlp(2), 0.7, jnp.array([0.3, -0.2]))
    other = Denoiser(mlp(2, seed=5), 1.3)
    model = DiffusionModel(other, FitConfig())
    x, v, sigma = jnp.array([0.4, -1.1]), jnp.array([1.0, 0.5]), jnp.array(0.6)
    found = distillation_loss(denoiser, Teacher(model, jnp.array(3.0)), x, sigma, v)
    scale = sigma * jnp.sqrt(sigma**2 + 0.7**2) / 0.7

    def error(y):
        return scale * (denoiser.score(y, sigma) - model.score_at(sigma)(y))

    expected = jnp.mean(error(x) ** 2) + 3 * jnp.mean((jax.jacfwd(error)(x) @ (sigma * v)) ** 2)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    nothing = distillation_loss(denoiser, Teacher(DiffusionModel(denoiser, FitConfig()), 1.0), x, sigma, v)
    assert float(nothing) < 1e-20


@pytest.mark.slow
def test_a_student_learns_score_and_jacobian(trained, modes):
    """A smaller student is nearer to its teacher than to what a fit of the same size learns from data."""
    points = modes[0][:5000]
    settings = FitConfig(
        steps=600, batch_size=128, width=32, depth=2, chunk_steps=200, levels=LogNormalLevels(-0.7, 0.4)
    )
    student = distill(trained, points, settings, progress=False)
    alone = fit(points, settings, progress=False)
    held_out = jnp.asarray(modes[0][-500:])

    def errors(model):
        def products(score):
            return jax.vmap(lambda x, v: jnp.stack(jax.jvp(score, (x,), (v,))))(held_out, jnp.roll(held_out, 1, 0))

        exact, found = (products(m.score_at(0.5)) for m in (trained, model))
        return np.sqrt(np.sum((found - exact) ** 2, (0, 2)) / np.sum(exact**2, (0, 2)))

    assert (errors(student) < 0.5 * errors(alone)).all()
    assert errors(student)[0] < 0.1


@pytest.mark.slow
def test_the_jacobian_term_acts(trained, modes):
    """The gradient of the loss depends on its weight, and a step with it differs from one without."""
    students = [distill(trained, modes[0][:200], QUICK, jacobian=j, progress=False) for j in (0.0, 10.0)]
    weights = [jax.tree.leaves(student.weights["net"]) for student in students]
    assert any(not np.array_equal(a, b) for a, b in zip(*weights, strict=True))


@pytest.mark.slow
def test_settings_come_from_the_teacher(trained, modes):
    units = Standardization(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    teacher = DiffusionModel(trained.denoiser, dataclasses.replace(QUICK, reference_size=64), standardization=units)
    student = distill(teacher, modes[0][:200], width=4, progress=False)
    assert (student.config.width, student.config.depth, student.config.reference_size) == (4, 1, 0)
    np.testing.assert_array_equal(student.standardization.mean, units.mean)


@pytest.mark.slow
@pytest.mark.parametrize("centred", [True, False])
def test_points_far_from_the_origin(centred):
    """A teacher that knows its mean in float64, and one that is asked where the points are."""
    far = np.array([3e5, -2.0]) if centred else np.array([30.0, -2.0])
    points = np.random.default_rng(0).normal(size=(200, 2)) * 0.5 + far
    config = dataclasses.replace(QUICK, steps=400, chunk_steps=200, levels=LogNormalLevels(0.0, 0.1))
    exact = DiffusionModel(Denoiser(MLP(2, width=4, depth=1, key=jax.random.key(3)), 0.5), QUICK, mean=far)
    teacher = exact if centred else Mixture(far)
    student = distill(teacher, points, config, progress=False)
    x = jnp.asarray(points[:50]) + 1.0
    wanted, found = (np.asarray(jax.vmap(model.score_at(1.0))(x)) for model in (teacher, student))
    assert np.linalg.norm(found - wanted) < 0.3 * np.linalg.norm(wanted)


@pytest.mark.slow
def test_noise_is_added_to_an_exact_score_once():
    denoiser = Denoiser(MLP(2, width=4, depth=1, key=jax.random.key(3)), 1.0)
    x, sigma, v = jnp.array([0.4, -1.1]), jnp.array(0.6), jnp.zeros(2)
    exact = Mixture().score.noised(1.0, sigma)
    found = distillation_loss(denoiser, Teacher(Mixture(), jnp.array(0.0)), x, sigma, v)
    error = sigma * jnp.sqrt(sigma**2 + 1) * (denoiser.score(x, sigma) - exact(x))
    np.testing.assert_allclose(found, jnp.mean(error**2), rtol=1e-5)


@pytest.mark.slow
def test_a_run_goes_on_with_its_own_teacher_only(trained, modes, tmp_path):
    points = modes[0][:200]
    whole = distill(trained, points, QUICK, progress=False)
    first = distill(trained, points, dataclasses.replace(QUICK, steps=20), checkpoint_dir=tmp_path, progress=False)
    again = distill(trained, points, QUICK, checkpoint_dir=tmp_path, progress=False)
    for a, b, c in zip(*(jax.tree.leaves(model.weights) for model in (whole, first, again)), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    other = DiffusionModel(Denoiser(MLP(2, width=4, depth=1, key=jax.random.key(3)), 1.0), QUICK)
    with pytest.raises(ValueError, match="teacher"):
        distill(other, points, QUICK, checkpoint_dir=tmp_path, progress=False)
    with pytest.raises(ValueError, match="teacher"):
        fit(points, QUICK, checkpoint_dir=tmp_path, progress=False)


@pytest.mark.slow
def test_bad_input(trained):
    points = np.zeros((10, 2), np.float32)
    with pytest.raises(TypeError, match=r"`teacher` must have score_at.*function"):
        distill(swirl, points)
    with pytest.raises(ValueError, match=r"`data` must have shape \(n, 2\).*\(10, 3\)"):
        distill(trained, np.zeros((10, 3), np.float32))
    for jacobian in (-1.0, np.inf, "much"):
        with pytest.raises(ValueError, match="`jacobian`"):
            distill(trained, points, jacobian=jacobian)
    with pytest.raises(ValueError, match="`conditions`"):
        distill(trained, points, conditions=np.zeros(10, int))
    with pytest.raises(TypeError, match="`copy` must have score_at"):
        evaluate_copy(trained, swirl, points, (0.5,), key=jax.random.key(0))
    with pytest.raises(ValueError, match="`points` must be at least two"):
        evaluate_copy(trained, trained, points[:1], (0.5,), key=jax.random.key(0))
    with pytest.raises(ValueError, match="`sigmas`"):
        evaluate_copy(trained, trained, points, (-0.5,), key=jax.random.key(0))


class Scaled:
    """A copy whose score is off by a known factor."""

    def __init__(self, factor):
        self.factor = factor

    def score_at(self, sigma):
        return FunctionScore(lambda x, c: -c * x, jnp.asarray(self.factor))


@pytest.mark.slow
def test_the_report_knows_the_errors_of_a_copy():
    """Where the metric is c^2 for the score -c x, distances are off by as much as scores."""
    points = jax.random.normal(jax.random.key(0), (30, 3))
    report = evaluate_copy(
        Scaled(1.0),
        Scaled(1.1),
        points,
        (0.5, 1.0),
        key=jax.random.key(1),
        pairs=5,
        metric=lambda score: MatrixMetric(lambda x, c: c**2 * jnp.eye(3), score.args[0]),
        distance_sigma=1.0,
        solver=SpectralNewton(max_elements=1, continuation=0),
    )
    np.testing.assert_allclose(report.score_error, 0.1, rtol=1e-6)
    np.testing.assert_allclose(report.jvp_error, 0.1, rtol=1e-6)
    np.testing.assert_allclose(report.distance_errors, 0.1, rtol=1e-6)
    assert report.solved == 5
    assert not report.good_enough
    assert "NOT good enough" in str(report)
    assert report.to_dict()["good_enough"] is False
    assert (report.speed_up > 0).all()


def test_a_report_without_a_solved_pair_says_so():
    empty = CopyReport(np.ones(1), np.ones(1), np.ones(1), np.ones(1), 1.0, 3, 0, np.zeros(0), 1.0)
    assert np.isnan(empty.distance_error)
    assert not empty.good_enough
    assert "0 of 3 pairs" in str(empty)


@pytest.mark.slow
def test_a_network_of_the_user_is_the_student(trained, modes):
    """A network of the user's own is the student."""

    class Own(nnx.Module):
        dim = 2

        def __init__(self):
            self.linear = nnx.Linear(3, 2, rngs=nnx.Rngs(0))

        def __call__(self, x, c_noise):
            return self.linear(jnp.append(x, c_noise))

    student = distill(trained, modes[0][:200], QUICK, network=Own(), progress=False)
    assert student.score_at(0.5)(jnp.ones(2)).shape == (2,)
