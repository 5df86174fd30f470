"""The scripts in examples/ run, with --quick, and what they print is true."""

import importlib.util
import os
import pathlib
import re
import runpy
import subprocess
import sys

import jax
import matplotlib
import numpy as np
import pytest
from PIL import Image

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
DOCS = EXAMPLES.parent / "docs"


def run(name, folder, *options, **variables):
    """What the script prints, run in ``folder``, by a Python of its own with further environment variables."""
    environment = {**os.environ, "MPLBACKEND": "Agg", **variables}
    command = [sys.executable, str(EXAMPLES / name), *options]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def quick(tmp_path, monkeypatch, capsys):
    """Runs a script with ``--quick`` in this process, which has imported what takes seconds: what it prints. It writes
    its picture, and the files named, and nothing else."""

    def run_here(name, *files):
        picture = tmp_path / "picture.png"
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, "--quick", "--out", str(picture)])
        with jax.enable_x64(True), matplotlib.rc_context():
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert {path.name for path in tmp_path.iterdir()} == {"picture.png", *files}
        return capsys.readouterr().out

    return run_here


def numbers(pattern, text):
    """The groups of the first match of ``pattern``, as numbers."""
    found = re.search(pattern, text, re.MULTILINE)
    assert found, text
    return [float(word) for word in found.groups()]


@pytest.mark.slow
def test_geodesics_of_a_mixture(quick):
    out = quick("geodesics_of_a_mixture.py")
    paths = re.findall(r"^geodesic from the (\w+) line +(\S+) +error (\S+) +defect (\S+)$", out, re.MULTILINE)
    assert [name for name, *_ in paths] == ["straight", "bent"]
    for (_, *values), expected in zip(paths, (5.055029, 7.679214), strict=True):
        length, error, defect = map(float, values)
        assert abs(length / expected - 1) < 1e-4
        assert error < 1e-4 * length
        assert defect < 3e-2


@pytest.mark.slow
def test_terrain(quick, tmp_path):
    """The script itself holds each length against that of the curve in space."""
    out = quick("terrain.py")
    ((name, words),) = re.findall(r"^([A-D]) +(.*)$", out, re.MULTILINE)
    found = np.array([float(word.rstrip("m")) for word in words.split()])
    steeper, ground, climb, *line, error, defect = found
    # The geodesic is shorter on the steeper land; on the ground, nothing is shorter than the straight line.
    assert name == "A"
    assert steeper < 0.97 * line[0]
    assert ground > line[1]
    assert climb < 0.8 * line[2]
    assert error < 2e-5 * steeper
    assert defect < 3e-2
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size == (1250, 630)
    # From a coarser graph another geodesic may be found, of nearly the same length.
    printed = printed_in_docs(out)[0]
    np.testing.assert_allclose(line, printed[3:], rtol=1e-3, atol=0.6)
    np.testing.assert_allclose(steeper, printed[0], rtol=0.01)


@pytest.mark.slow
def test_pictures_of_a_metric(quick, tmp_path):
    out = quick("pictures_of_a_metric.py")
    assert re.search(r"^Geodesic\(length 2\.1506\d.* converged, .* straight line 1\.8248 to Euclid$", out, re.MULTILINE)
    assert "8 converged, lengths 2 to 2" in out
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size == (1320, 768)


def printed_in_docs(out):
    """The numbers of the table in docs/examples.md that has the head of ``out``."""
    table = (DOCS / "examples.md").read_text().split(out.splitlines()[1])[1].split("```")[0]
    return [[float(word.rstrip("m")) for word in row.split()[1:7]] for row in table.strip().splitlines()]


@pytest.mark.slow
def test_distance_as_a_loss(quick):
    out = quick("distance_as_a_loss.py")
    mismatches = [float(x) for x in re.findall(r"loss (\S+)", out)]
    assert mismatches[-1] < 0.1 * mismatches[0]
    assert abs(numbers(r"^  strength (\S+)$", out)[0] - 2) < 0.5


@pytest.mark.slow
def test_spacetime_of_a_mixture(quick):
    assert abs(numbers(r"^distance +(\S+)", quick("spacetime_of_a_mixture.py"))[0] - 6.40808) < 2e-3


@pytest.mark.slow
def test_gmm_components(quick, tmp_path):
    assert "over 10 of 10 pairs" in quick("gmm_components.py", "gmm_components.csv")
    assert len((tmp_path / "gmm_components.csv").read_text().splitlines()) == 11


@pytest.mark.slow
def test_fisher_rao_means_of_data(quick):
    """Without one line, what the page says."""
    page = (DOCS / "examples.md").read_text()
    assert [line for line in quick("fisher_rao_means_of_data.py").splitlines() if line not in page] == []


@pytest.mark.slow
def test_means_of_digits(quick):
    out = quick("means_of_digits.py")
    (frechet,), (blur,) = (numbers(rf"^{name} +means are (\S+) from", out) for name in ("Frechet", "arithmetic"))
    assert frechet < 0.8 * blur


@pytest.mark.slow
def test_clusters_of_moons(quick):
    found = re.findall(r"^(.*?) +(-?[\d.]+)$", quick("clusters_of_moons.py"), re.MULTILINE)
    agreement = {name: float(value) for name, value in found}
    assert agreement.pop("Euclid's k-means") < 0.5
    assert len(agreement) == 3
    assert min(agreement.values()) >= 0.85


@pytest.mark.slow
def test_geodesic_neighbours(quick):
    rows = re.findall(r"^ +(\d+) +([\d.]+) +([\d.]+) +([\d.]+)$", quick("geodesic_neighbours.py"), re.MULTILINE)
    assert [int(count) for count, *_ in rows] == [2, 5, 20]
    assert all(float(accuracy) > 0.5 for _, *row in rows for accuracy in row)


@pytest.mark.slow
def test_mean_of_letters(quick):
    """The angles are symmetric about zero: so is the mean that is one of the letters."""
    out = quick("mean_of_letters.py")
    (blur, _), (away, angle) = (
        numbers(rf"^{name} +mean +(\S+) from the nearest letter, which is turned by (\S+)$", out)
        for name in ("arithmetic", "power of p")
    )
    assert away < 0.25 * blur
    assert abs(angle) < 3


@pytest.mark.slow
def test_gaussian_geodesic(quick):
    """Stronger metrics bend more: longer paths that climb less, up to the level set."""
    out = quick("gaussian_geodesic.py")
    rows = np.array([line.split() for line in out.splitlines()[2:-1]], float)
    level_set = numbers(r"^the level set between the points: (\S+)$", out)[0]
    straight = numbers(r"^ +0 +(\S+)$", out)[0]
    strength, length, walked, climb, error = rows.T
    assert list(strength) == [0.5, 50.0]
    assert straight < walked[0] < walked[1] < level_set
    assert (walked < length).all()
    assert (length < level_set).all()  # of which every metric has the same length: its geodesic is not longer
    assert climb[1] < 0.1 * climb[0]
    assert (error < 1e-6).all()


@pytest.mark.slow
def test_own_metric(quick):
    out = quick("own_metric.py")
    x, y, spread = numbers(r"^rays meet at \((\S+), (\S+)\), to (\S+)$", out)
    assert max(abs(x - 1), abs(y), spread) < 1e-6
    assert abs(numbers(r"^Gauss curvature at x (\S+)$", out)[0] - 1) < 1e-5
    found, globe = numbers(r"^dist\(lens, x, y\) (\S+), on the globe (\S+)$", out)
    assert abs(found - globe) < 1e-6


@pytest.mark.slow
def test_fisher_rao_half_plane(quick):
    out = quick("fisher_rao_half_plane.py")
    rows = re.findall(r"^N\(.*\) +(\S+) +(\S+) +(\S+)$", out, re.MULTILINE)
    distances, off, widths = np.array(rows, float).T
    assert (off < 1e-12).all()
    # Normal distributions of one deviation s, a apart: cosh d/sqrt(2) = 1 + a^2 / (4 s^2).
    np.testing.assert_allclose(distances[0], 2**0.5 * np.arccosh(1 + 16 / (4 * 0.16)), atol=1e-5)
    assert widths[0] > 3 * 0.4


@pytest.mark.slow
def test_stein_against_fisher(quick):
    out = quick("stein_against_fisher.py")
    assert numbers(r"is I \+ strength F to (\S+)$", out)[0] < 1e-12
    assert numbers(r"^Stein geodesic .* (\S+) off the straight line$", out)[0] > 0.2


@pytest.mark.slow
def test_curvature_map(quick):
    """Gauss and Bonnet."""
    out = quick("curvature_map.py")
    for name, sign in (("over a mode", 1), ("over the saddle", -1)):
        pattern = rf"^{name} +angles sum to 180 +(\S+) degrees; curvature inside +(\S+) degrees$"
        excess, inside = numbers(pattern, out)
        assert abs(excess - inside) < 0.01 * abs(excess)
        assert sign * excess > 20


@pytest.mark.slow
def test_score_of_moons(quick):
    out = quick("score_of_moons.py")
    learned, true = (np.array(numbers(rf"^lengths, {name} +(\S+) +(\S+)$", out)) for name in ("learned", "true"))
    assert (abs(learned / true - 1) < 0.5).all()


@pytest.mark.slow
def test_interpolate_digits(quick):
    straight, geodesic = numbers(r"^3 to 8 +(\S+) +(\S+) ", quick("interpolate_digits.py"))
    assert 0 < geodesic < 1.2 * straight


@pytest.mark.slow
def test_rotated_letters(quick):
    out = quick("rotated_letters.py")
    straight, geodesic = (numbers(rf"^{name} +(\S+) from", out)[0] for name in ("straight line", "geodesic"))
    assert geodesic < 0.8 * straight


@pytest.mark.slow
def test_sharded_distances(tmp_path):
    """In a Python of its own, which has four devices."""
    out = run("sharded_distances.py", tmp_path, "--quick")
    assert out.count("100.0% converged") == 2
    assert numbers(r"^largest relative difference (\S+)$", out)[0] < 1e-6
    assert (tmp_path / "sharded_distances.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_geodesic_loss(quick):
    """To Euclid the best answer is inside of the ring, whose radius is 1: at the mean cosine of the error."""
    out = quick("geodesic_loss.py")
    names = "Euclid's loss", "geodesic, equinox"
    euclid, along = (numbers(rf"^{name} +solved .* radius (\S+)", out)[0] for name in names)
    assert abs(euclid - 0.78) < 0.06
    assert along > euclid + 0.05
    assert numbers(r"^geodesic, equinox +solved +(\S+)%", out)[0] > 90


@pytest.mark.slow
def test_torch_score(quick):
    pytest.importorskip("torch", reason="pip install torch, which is large")
    out = quick("torch_score.py")
    learned, true = (numbers(rf"^{name} +Geodesic\(length (\S+)", out)[0] for name in ("learned by torch", "true"))
    assert abs(learned / true - 1) < 0.2


# Its networks have no licence, so that nothing made of them is here.
WITHOUT_PICTURE = {"galaxies"}
SCRIPTS = sorted(EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_example_is_in_the_gallery(path):
    """With a section of its own: its picture, small enough for a page of many, and its script, short enough to read."""
    page = (DOCS / "examples.md").read_text()
    sections = [part for part in page.split("\n## ")[1:] if f"../examples/{path.name}" in part]
    assert len(sections) == 1, f"docs/examples.md has {len(sections)} sections with {path.name}"
    assert len(path.read_text().splitlines()) < 150
    assert '"--out"' in path.read_text()
    assert '"--quick", action="store_true"' in path.read_text()
    picture = DOCS / "images" / "gallery" / f"{path.stem}.png"
    if path.stem in WITHOUT_PICTURE:
        assert not picture.exists()
        return
    assert f"(images/gallery/{path.stem}.png)" in sections[0]
    assert f"images/gallery/{path.stem}.png\n" in page.split("\n## ")[0], "no thumbnail"
    assert picture.stat().st_size < 60_000
    with Image.open(picture) as image:
        assert 400 <= image.width <= 1000


def test_gallery_has_no_other_pictures():
    pictures = {path.stem for path in (DOCS / "images" / "gallery").iterdir()}
    assert pictures == {path.stem for path in SCRIPTS} - WITHOUT_PICTURE
    assert sum(path.stat().st_size for path in (DOCS / "images" / "gallery").iterdir()) < 1_000_000


@pytest.fixture
def path_with_galaxygrad(tmp_path_factory):
    """``PYTHONPATH`` of someone else's networks, which are installed from the registry for this test alone."""
    if importlib.util.find_spec("galaxygrad") is not None:
        return os.environ.get("PYTHONPATH", "")
    place = tmp_path_factory.mktemp("packages")
    settings = ["--quiet", "--python", sys.executable, "--target", str(place), "--no-deps"]
    try:
        subprocess.run(["uv", "pip", "install", *settings, "galaxygrad==0.1.9", "einops"], check=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"someone else's networks cannot be installed here: {error}")
    return str(place)


@pytest.mark.slow
def test_galaxies(tmp_path, path_with_galaxygrad):
    # They are not imported here: the weights are read in single precision, which is not that of the tests.
    out = run("galaxies.py", tmp_path, "--quick", PYTHONPATH=path_with_galaxygrad)
    apart = float(re.search(r"([\d.]+) apart", out).group(1))
    found = re.findall(r"^(Euclid|Stein|inverse Stein) +Geodesic\(length ([\d.]+) .* converged,", out, re.MULTILINE)
    lengths = {name: float(length) for name, length in found}
    assert len(lengths) == 3
    assert abs(lengths["Euclid"] - apart) < 0.01
    assert lengths["Stein"] > apart > lengths["inverse Stein"]
    assert (tmp_path / "galaxies.png").read_bytes().startswith(b"\x89PNG")
