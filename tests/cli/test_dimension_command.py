"""``scoregeo dimension`` on data whose dimension is known, and one line for every mistake."""

import json
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from scoregeo import GaussianMixtureScore, cli
from scoregeo.diffusion import EDM

# A plane in space, with noise of a thousandth.
PLANE = GaussianMixtureScore(jnp.ones(1), jnp.zeros((1, 3)), jnp.diag(jnp.array([9.0, 4.0, 1e-6]))[None])
LEVELS = ("0.002", "0.005", "0.02", "0.1", "0.3")


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs the command with the exact score for a model, on thirty points of the plane; gives its JSON object."""
    model = SimpleNamespace(
        dim=3, standardization=None, schedule=EDM(), score_at=lambda sigma: PLANE.noised(1.0, sigma)
    )
    monkeypatch.setattr("scoregeo.cli.models.dimension.load_model", lambda folder, report: model)
    points = np.random.default_rng(0).normal(size=(40, 3)) * [3.0, 2.0, 0.0]
    np.save(tmp_path / "points.npy", points)

    def go(*words):
        files = ["--model", "m", "--data", str(tmp_path / "points.npy"), "--n", "30", "--sigmas", *LEVELS]
        cli.main(["dimension", *files, *words, "--json"])
        return json.loads(capsys.readouterr().out)

    return go


# Denoising draws noise: the standard error of its median over 30 points is about 0.06.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "tolerance"),
    [([], 0.01), (["--method", "rank"], 0.01), (["--method", "denoising"], 0.4), (["--method", "normals"], 0)],
)
def test_a_plane_has_two_dimensions(run, words, tolerance):
    found = run(*words)
    medians = np.median(found["dimensions"], axis=0)
    assert np.shape(found["dimensions"]) == (30, 5)
    np.testing.assert_allclose(medians[3], 2, atol=tolerance + 1e-9)


def test_the_curve_and_where_it_is_read(run, tmp_path):
    """d + sigma^2 (tr J + |s|^2) of a Gaussian: a closed form for every point and level."""
    found = run("--out", str(tmp_path / "d.npz"), "--picture", str(tmp_path / "d.png"))
    with np.load(tmp_path / "d.npz") as file:
        xs = np.load(tmp_path / "points.npy")[file["rows"]]
        sigmas = file["sigmas"]
        variances = np.array([9.0, 4.0, 1e-6]) + sigmas[:, None] ** 2
        terms = -1 / variances + (xs[:, None] / variances) ** 2
        np.testing.assert_allclose(file["dimensions"], 3 + sigmas**2 * terms.sum(-1), atol=1e-6)
        assert float(file["knee"]) == found["knee"] in sigmas
        np.testing.assert_allclose(file["at_knee"], 2, atol=0.1)
    assert found["files"] == [str(tmp_path / "d.npz"), str(tmp_path / "d.png")]
    with Image.open(tmp_path / "d.png") as picture:
        assert min(picture.size) > 500


def test_tables_and_estimated_traces(run, tmp_path):
    exact, estimated = run("--out", str(tmp_path / "d.csv")), run("--probes", "8", "--seed", "1")
    table = pd.read_csv(tmp_path / "d.csv")
    assert list(table)[:3] == ["row", "dimension", "sigma=0.002"]
    np.testing.assert_allclose(table["sigma=0.1"], np.array(exact["dimensions"])[:, 3])
    assert estimated["rows"] != exact["rows"]  # another seed draws other points
    # Eight directions each, and the median of thirty points.
    np.testing.assert_allclose(np.median(estimated["dimensions"], 0)[3], 2, atol=0.9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sigmas", "0.2", "0.1"], "`--sigmas` must increase, got 0.2 0.1"),
        (["--sigmas", "1e9"], "`--sigmas` must be a noise level that the model knows"),
        (["--n", "0"], "`--n` must be at least 1, got 0"),
        (["--probes", "2"], "`--probes` must be at least 3, got 2"),
        (["--probes", "8", "--method", "normals"], "`--probes` is for `--method trace` and `rank`, but it is normals"),
        (["--out", "d.json"], "`--out` must end in .npy, .npz, .csv or .parquet, got d.json"),
    ],
)
def test_mistakes(tiny, capsys, words, message):
    with pytest.raises(SystemExit) as stop:
        cli.main(["dimension", "--model", str(tiny / "model"), "--data", str(tiny / "points.csv"), *words])
    assert stop.value.code == cli.MISTAKE
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
