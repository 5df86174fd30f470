"""The scripts in examples/ run as a user runs them, and what they print is true."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
DOCS = EXAMPLES.parent / "docs"


def run(name, folder):
    """What the script prints, run in ``folder``."""
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    command = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_geodesics_of_a_mixture(tmp_path):
    out = run("geodesics_of_a_mixture.py", tmp_path)
    paths = re.findall(r"^geodesic from the (\w+) line +(\S+) +error (\S+) +defect (\S+)$", out, re.MULTILINE)
    assert [name for name, *_ in paths] == ["straight", "bent"]
    for (_, *numbers), expected in zip(paths, (5.055029, 7.679214), strict=True):
        length, error, defect = map(float, numbers)
        assert abs(length - expected) < 2e-5
        assert error < 1e-6 * length
        assert defect < 1e-2
    assert re.search(r"^dist.* 5\.05503$|^dist.* 5\.055029$", out, re.MULTILINE)
    assert (tmp_path / "geodesics_of_a_mixture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_terrain(tmp_path):
    """The script itself holds each length against that of the curve in space."""
    out = run("terrain.py", tmp_path)
    rows = re.findall(r"^([A-D]) +(.*)$", out, re.MULTILINE)
    numbers = np.array([[float(word.rstrip("m")) for word in words.split()] for _, words in rows])
    assert [name for name, _ in rows] == list("ABCD")
    steeper, ground, climb, *line, error, defect = numbers.T
    # Each geodesic is shorter on the steeper land; on the ground, nothing is shorter than the straight line.
    assert (steeper < 0.97 * line[0]).all()
    assert (ground > line[1]).all()
    assert (climb < 0.8 * line[2]).all()
    assert (error < 1e-6).all()
    assert (defect < 1e-3).all()
    with Image.open(tmp_path / "terrain.png") as picture:
        assert picture.size == (1250, 630)
    assert (tmp_path / "terrain.png").stat().st_size < 300_000
    np.testing.assert_allclose(numbers[:, :6], printed_in_docs(out), rtol=1e-3, atol=1.5)


@pytest.mark.slow
def test_pictures_of_a_metric(tmp_path):
    out = run("pictures_of_a_metric.py", tmp_path)
    assert re.search(r"^Geodesic\(length 2\.1506\d.* converged, .* straight line 1\.8248 to Euclid$", out, re.MULTILINE)
    assert "32 converged, lengths 2 to 2" in out
    with Image.open(tmp_path / "pictures.png") as picture:
        assert picture.size == (1320, 768)


def printed_in_docs(out):
    """The numbers of the table in docs/examples.md that has the head of ``out``."""
    table = (DOCS / "examples.md").read_text().split(out.splitlines()[1])[1].split("```")[0]
    return [[float(word.rstrip("m")) for word in row.split()[1:7]] for row in table.strip().splitlines()]


@pytest.mark.slow
def test_distance_as_a_loss(tmp_path):
    middles, strength = run("distance_as_a_loss.py", tmp_path).split("learning the strength")
    middles, mismatches = ([float(x) for x in re.findall(r"loss (\S+)", part)] for part in (middles, strength))
    assert middles == sorted(middles, reverse=True)
    assert middles[-1] < 0.8 * middles[0]
    assert mismatches[-1] < 0.01 * mismatches[0]
    assert abs(float(re.search(r"strength (\d\S+)$", strength.strip()).group(1)) - 2) < 0.1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_spacetime_of_a_mixture(tmp_path):
    out = run("spacetime_of_a_mixture.py", tmp_path)
    assert abs(float(re.search(r"^distance +(\S+)", out, re.MULTILINE).group(1)) - 6.40808) < 2e-4
    assert (tmp_path / "spacetime_of_a_mixture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_gmm_components(tmp_path):
    out = run("gmm_components.py", tmp_path)
    assert "over 28 of 28 pairs" in out
    assert len((tmp_path / "gmm_components.csv").read_text().splitlines()) == 29
    assert (tmp_path / "gmm_components.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_fisher_rao_means_of_data(tmp_path):
    out = run("fisher_rao_means_of_data.py", tmp_path)
    assert f"```text\n{out}```" in (DOCS / "examples.md").read_text()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_clusters_of_moons(tmp_path):
    out = run("clusters_of_moons.py", tmp_path)
    agreement = {name: float(value) for name, value in re.findall(r"^(.*?) +(-?[\d.]+)$", out, re.MULTILINE)}
    assert agreement.pop("Euclid's k-means") < 0.5
    assert len(agreement) == 3
    assert min(agreement.values()) >= 0.95
    assert (tmp_path / "clusters_of_moons.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_geodesic_neighbours(tmp_path):
    rows = re.findall(r"^ +(\d+) +([\d.]+) +([\d.]+) +([\d.]+)$", run("geodesic_neighbours.py", tmp_path), re.MULTILINE)
    assert [int(count) for count, *_ in rows] == [2, 5, 20]
    assert all(float(accuracy) > 0.5 for _, *row in rows for accuracy in row)


@pytest.mark.slow
def test_means_of_digits(tmp_path):
    out = run("means_of_digits.py", tmp_path)
    away = [float(value) for value in re.findall(r"are (\S+) from the nearest image", out)]
    assert len(away) == 4
    # Letters are on a curve that is known; of digits nobody knows that arithmetic means are worse.
    assert away[2] < 0.7 * away[3]
    assert (tmp_path / "means_of_digits.png").read_bytes().startswith(b"\x89PNG")


def test_every_example_is_shown():
    page = (DOCS / "examples.md").read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f"../examples/{path.name}" in page, f"docs/examples.md does not show {path.name}"


@pytest.mark.slow
def test_galaxies(tmp_path):
    pytest.importorskip("galaxygrad", reason="someone else's networks: pip install galaxygrad==0.1.9")
    out = run("galaxies.py", tmp_path)
    apart = float(re.search(r"([\d.]+) apart", out).group(1))
    found = re.findall(r"^(Euclid|Stein|inverse Stein) +Geodesic\(length ([\d.]+) .* converged,", out, re.MULTILINE)
    lengths = {name: float(length) for name, length in found}
    assert len(lengths) == 3
    assert abs(lengths["Euclid"] - apart) < 0.01
    assert lengths["Stein"] > apart > lengths["inverse Stein"]
    assert (tmp_path / "galaxies.png").read_bytes().startswith(b"\x89PNG")
