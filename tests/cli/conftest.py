"""A small model for the tests of commands, trained once for all of them."""

import numpy as np
import pytest

from scoregeo import cli

TRAIN = ["--steps", "40", "--chunk-steps", "40", "--width", "16", "--depth", "2", "--warmup-steps", "4"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A folder with the model of two lumps of points, model, which is hardly trained; train.npy, and the first of its
    points as points.csv with columns x and y."""
    folder = tmp_path_factory.mktemp("tiny")
    random = np.random.default_rng(0)
    points = random.normal(size=(300, 2)) * [1.0, 0.5] + np.where(np.arange(300)[:, None] % 2, [[8.0, -2.0]], 0.0)
    np.save(folder / "train.npy", points)
    np.savetxt(folder / "points.csv", points[:12], delimiter=",", header="x,y", comments="")
    words = ["train", "--data", str(folder / "train.npy"), "--out", str(folder / "model"), "--quiet"]
    cli.main([*words, *TRAIN])
    return folder
