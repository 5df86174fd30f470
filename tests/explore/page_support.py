"""What the tests of pages share: a small page, what is in it, and the solver of the page under Node.js."""

import base64
import json
import pathlib
import re
import shutil
import subprocess
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoregeo import GaussianMixtureScore
from scoregeo.explore import page as pages
from scoregeo.scores import AbstractScore

ASSETS = pathlib.Path(pages.__file__).parent / "assets"


def mixture() -> GaussianMixtureScore:
    """Three modes: one to go round."""
    means = jnp.array([[-1.5, 0.0], [1.5, 0.0], [0.0, 1.5]])
    return GaussianMixtureScore(jnp.array([0.4, 0.35, 0.25]), means, jnp.tile(0.1 * jnp.eye(2), (3, 1, 1)))


def points(n: int = 200) -> jax.Array:
    """Data of `mixture`."""
    return mixture().sample(jax.random.key(0), n)


class Turned(AbstractScore):
    """A score with curl: that of `mixture` and a rotation."""

    base: GaussianMixtureScore
    conservative: bool = False

    def __call__(self, x):
        return self.base(x) + 0.8 * jnp.stack([-x[1], x[0]])


def about(page: str) -> dict[str, Any]:
    """The data of a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found.group(1))


def floats(text: str) -> np.ndarray:
    """The numbers of an array in the data of a page."""
    return np.frombuffer(base64.b64decode(text), "<f4")


def node() -> str:
    """Node.js; skips the test where there is none."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("Node.js is not installed")
    return program


def solve_in_node(page: str, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the solver of the page says of each case ``{metric, level, ratio, a, b}``."""
    driver = pathlib.Path(__file__).with_name("solve.js")
    text = json.dumps({"about": about(page), "cases": cases})
    ran = subprocess.run([node(), str(driver), str(ASSETS)], input=text, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)
