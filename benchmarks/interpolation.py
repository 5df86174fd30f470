"""Do geodesics stay on the data? Rotated letters, whose true path is known, and digits, judged by a classifier.

For each metric the noise level and the ratio are chosen on pairs that are not reported; starts and baselines are
reported as they are. Writes one row for each method and separation of the ends: means with standard errors over the
pairs, the share of solves that converged, and the median of seconds for one solve (after compilation).

    uv run python benchmarks/interpolation.py letters --pairs 50 --out benchmarks/results/letters.csv
    uv run python benchmarks/interpolation.py digits --pairs 50 --out benchmarks/results/digits.csv
"""

import argparse
import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from timing import write_rows

from scoregeo import (
    RESULTS,
    AbstractMetric,
    ConformalMetric,
    Denoised,
    EuclideanMetric,
    GraphInit,
    Latent,
    NormCorrected,
    ScoreJacobianMetric,
    Spherical,
    SteinMetric,
    StraightLine,
    geodesic,
    recommend_strength,
)
from scoregeo.datasets import Dataset, digits, rotated_letters
from scoregeo.diffusion import DiffusionModel, FitConfig, fit
from scoregeo.geodesics.base import default_solver

jax.config.update("jax_enable_x64", True)
TS = jnp.linspace(0.0, 1.0, 65)


@dataclasses.dataclass
class Method:
    """A curve between two points: a start alone (``metrics`` empty), or geodesics of one of several settings."""

    start: object
    metrics: dict[str, AbstractMetric] = dataclasses.field(default_factory=dict)


class Study:
    """What both data sets need: a model, pairs of ends, and a judge of paths (lower is better)."""

    groups: tuple  # separations of the ends

    def pairs(self, group, n: int, seed: int) -> list:
        """``n`` pairs: tuples whose first two entries are the ends."""
        raise NotImplementedError

    def judge(self, paths: np.ndarray, pairs: list, group) -> dict[str, np.ndarray]:
        """Figures for every path ``(65, d)``."""
        raise NotImplementedError


class Letters(Study):
    """Ends at half degrees, between those that the score was trained on; distances to rotations, in pixels."""

    groups, criterion, letters = (45, 90, 180), "to_the_same_time", "F5R"

    def __init__(self, folder: pathlib.Path, steps: int):
        self.data = rotated_letters(self.letters, 360).principal_components(48)
        config = FitConfig(
            steps=steps, batch_size=256, learning_rate=2e-3, width=256, depth=3, reference_size=len(self.data.points)
        )
        self.model = trained(folder / f"letters-{steps}", self.data, config)
        half = rotated_letters(self.letters, 720)
        self.truth = np.asarray(self.data.standardization.apply(np.asarray(half.points, float))).reshape(3, 720, -1)
        self.points = jnp.asarray(self.data.points, jnp.float64)

    def pairs(self, group, n, seed):
        random = np.random.default_rng((seed, group))
        places = [(random.integers(3), 2 * random.integers(360) + 1) for _ in range(n)]
        return [(self.truth[i, a], self.truth[i, (a + 2 * group) % 720], i, a) for i, a in places]

    def judge(self, paths, pairs, group):
        nearest, same = [], []
        for path, (_, _, letter, angle) in zip(paths, pairs, strict=True):
            away = np.linalg.norm(path[:, None] - self.truth[letter], axis=-1)
            nearest.append(away.min(1).mean())
            on_time = (angle + np.round(2 * group * np.asarray(TS)).astype(int)) % 720
            same.append(away[np.arange(len(path)), on_time].mean())
        return {"to_the_nearest": np.array(nearest), "to_the_same_time": np.array(same)}

    def methods(self) -> dict[str, Method]:
        data, score = self.points, self.model.score_at
        graph = GraphInit(data)
        stein = {f"sigma {s} ratio {r}": self._stein(s, r) for s in (0.1, 0.2, 0.4) for r in (10, 100)}
        power = {
            f"sigma {s} ratio {r:g}": ConformalMetric.power(score(s), data, r)
            for s in (0.1, 0.2)
            for r in (1e3, 1e4, 1e5)
        }
        jacobian = {f"sigma {s} strength 100": ScoreJacobianMetric(score(s), s, 100.0) for s in (0.1, 0.2, 0.4)}
        return {
            **baselines(self.model, data, 0.2),
            "data graph": Method(graph),
            "Stein": Method(StraightLine(), stein),
            "power of p": Method(StraightLine(), power),
            "power of p, from the graph": Method(graph, power),
            "score Jacobian": Method(StraightLine(), jacobian),
            "score Jacobian, from the graph": Method(graph, jacobian),
        }

    def _stein(self, sigma, ratio):
        score = self.model.score_at(sigma)
        return SteinMetric(score, recommend_strength(SteinMetric, score, self.points, ratio=ratio))


class Digits(Study):
    """Ends of different classes, held out; frames are shown to classifiers that were trained on other images.

    ``not_real``: the share that a classifier of images against linear mixtures of two does not call real. A mixture
    with its contrast restored deceives that one, so ``not_real_either`` is the share for a classifier that was shown
    linear and spherical mixtures.
    """

    groups, criterion = ("classes",), "not_real"

    def __init__(
        self,
        folder: pathlib.Path,
        steps: int,
        everything: Dataset | None = None,
        sizes: tuple[int, int] = (900, 450),
        components: int | None = None,
    ):
        """Of 8 x 8 digits, or of ``everything``; with ``components``, in the first principal ones of the training
        images. ``sizes``: of the images for the score and the data of the metrics, and of those for the classifiers;
        the rest are ends."""
        everything = digits() if everything is None else everything
        order = np.random.default_rng(0).permutation(len(everything.points))
        points, labels = np.asarray(everything.points, np.float64)[order], np.asarray(everything.labels)[order]
        self.data = Dataset(points[: sizes[0]], everything.name, image_shape=everything.image_shape)
        if components is not None:
            self.data = self.data.principal_components(components)
            points = np.asarray(self.data.standardization.apply(points))
        split = np.array_split(np.arange(len(points)), np.cumsum(sizes))
        (train, judges, ends) = ((points[part], labels[part]) for part in split)
        self.judges, self.ends = judges, ends
        config = FitConfig(steps=steps, batch_size=128, learning_rate=1e-3, width=256, depth=3)
        self.model = trained(folder / f"{everything.name}-{steps}", self.data, config)
        self.points = jnp.asarray(train[0])
        self.real, self.either, self.classes = classifiers(*judges)

    def pairs(self, group, n, seed):
        random, (points, labels) = np.random.default_rng(seed), self.ends
        found = []
        # Ends that are reported are not among those that settings are chosen on.
        mine = np.arange(len(points)) % 4 == 0 if seed == 0 else np.arange(len(points)) % 4 != 0
        while len(found) < n:
            i, j = random.choice(np.flatnonzero(mine), 2, replace=False)
            if labels[i] != labels[j]:
                found.append((points[i], points[j], labels[i], labels[j]))
        return found

    def judge(self, paths, pairs, group):
        inner = paths[:, 6:-6:6]
        flat = inner.reshape(-1, inner.shape[-1])
        real, either = (judge(flat).reshape(inner.shape[:2]) for judge in (self.real, self.either))
        classes = self.classes(flat).reshape(*inner.shape[:2], 10)
        two = [c[:, [a, b]].sum(1).mean() for c, (_, _, a, b) in zip(classes, pairs, strict=True)]
        return {
            "not_real": 1 - (real > 0.5).mean(1),
            "not_real_either": 1 - (either > 0.5).mean(1),
            "two_classes": np.array(two),
        }

    def methods(self) -> dict[str, Method]:
        data, score = self.points, self.model.score_at
        stein = {}
        for s in (0.1, 0.3):
            strength = recommend_strength(SteinMetric, score(s), data, ratio=100.0)
            stein[f"sigma {s} ratio 100"] = SteinMetric(score(s), strength)
        power = {
            f"sigma {s} ratio {r:g}": ConformalMetric.power(score(s), data, r) for s in (0.1, 0.2) for r in (1e3, 1e4)
        }
        return {
            **baselines(self.model, data, 0.3),
            "Stein": Method(StraightLine(), stein),
            "power of p": Method(StraightLine(), power),
            "power of p, from the graph": Method(GraphInit(data), power),
        }


def trained(folder: pathlib.Path, data: Dataset, config: FitConfig) -> DiffusionModel:
    """The model in ``folder``; trained and saved there if there is none."""
    if not (folder / "config.json").exists():
        fit(data.points, config, standardization=data.standardization).save(folder)
    return DiffusionModel.load(folder)


def baselines(model: DiffusionModel, data, sigma: float) -> dict[str, Method]:
    """Curves that no metric was asked for."""
    latent = model.latent()
    return {
        "straight": Method(StraightLine()),
        "spherical": Method(Spherical(jnp.mean(data, 0))),
        "straight, denoised": Method(Denoised(model.score_at(sigma))),
        "latent, spherical": Method(Latent(latent)),
        "latent, norm-corrected": Method(Latent(latent, NormCorrected())),
    }


def classifiers(points: np.ndarray, labels: np.ndarray) -> tuple[Callable, Callable, Callable]:
    """The probabilities that images are real and not a linear mixture of two; not a linear or spherical one; and that
    they are of each class."""
    from sklearn.neural_network import MLPClassifier

    random = np.random.default_rng(1)
    n, center = 8 * len(points), points.mean(0)
    i, j = random.integers(len(points), size=(2, n))
    t, mixed = random.uniform(0.2, 0.8, (n, 1)), labels[i] != labels[j]
    linear = (1 - t) * points[i] + t * points[j]
    radius = (1 - t) * np.linalg.norm(points[i] - center, axis=1, keepdims=True)
    radius = radius + t * np.linalg.norm(points[j] - center, axis=1, keepdims=True)
    spherical = center + radius * (linear - center) / np.linalg.norm(linear - center, axis=1, keepdims=True)
    real = np.repeat(points, 8, 0) + 0.05 * random.normal(size=(n, points.shape[1]))

    def against(*mixtures):
        images = np.concatenate([real, *mixtures])
        kind = np.concatenate([np.ones(n), np.zeros(len(images) - n)])
        found = MLPClassifier((128, 64), alpha=1e-2, max_iter=60, random_state=0).fit(images, kind)
        return lambda x: found.predict_proba(x)[:, 1]

    classes = MLPClassifier((128,), alpha=1e-1, max_iter=300, random_state=0).fit(points, labels)
    return against(linear[mixed]), against(linear[mixed], spherical[mixed]), classes.predict_proba


@eqx.filter_jit
def follow(start, x, y):
    """The curve that a start gives."""
    curve = start(EuclideanMetric(), x, y)
    return jax.vmap(lambda t: curve(t)[0])(TS), jnp.asarray(True)


@eqx.filter_jit
def solve(metric, start, x, y):
    """The geodesic; metrics of one kind share a program."""
    solver = dataclasses.replace(default_solver(metric), rtol=1e-3, path_rtol=1e-2)
    path = geodesic(metric, x, y, solver=solver, init=start, throw=False)
    return path.evaluate(TS), path.result == RESULTS.successful


def solve_all(method: Method, metric: AbstractMetric | None, pairs: list) -> tuple[np.ndarray, float, float]:
    """The paths ``(n, 65, d)``, the share that converged, and the median of seconds for one."""
    find = partial(follow, method.start) if metric is None else partial(solve, metric, method.start)
    paths, converged, seconds = [], [], []
    for k, (x, y, *_) in enumerate(pairs):
        for _ in range(2 if k == 0 else 1):  # the first call compiles
            start = time.perf_counter()
            found, success = jax.block_until_ready(find(jnp.asarray(x), jnp.asarray(y)))
            elapsed = time.perf_counter() - start
        paths.append(np.asarray(found))
        converged.append(bool(success))
        seconds.append(elapsed)
    return np.stack(paths), float(np.mean(converged)), float(np.median(seconds))


def run(study: Study, pairs: int, tuning: int) -> Iterator[dict]:
    """One row for each method and group."""
    for name, method in study.methods().items():
        for group in study.groups:
            setting, metric = "", None
            if method.metrics:
                chosen = study.pairs(group, tuning, seed=0)
                scores = {}
                for candidate, its_metric in method.metrics.items():
                    paths, _, _ = solve_all(method, its_metric, chosen)
                    scores[candidate] = float(np.mean(study.judge(paths, chosen, group)[study.criterion]))
                setting = min(scores, key=scores.get)
                metric = method.metrics[setting]
            reported = study.pairs(group, pairs, seed=1)
            paths, converged, seconds = solve_all(method, metric, reported)
            figures = study.judge(paths, reported, group)
            row = {"method": name, "group": group, "setting": setting, "pairs": pairs, "converged": converged}
            for key, values in figures.items():
                row[key] = float(values.mean())
                row[f"{key}_se"] = float(values.std(ddof=1) / np.sqrt(len(values)))
            yield row | {"seconds": seconds}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=("letters", "digits"))
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--tuning", type=int, default=6, help="pairs on which settings are chosen")
    parser.add_argument("--steps", type=int, default=6000, help="of training")
    parser.add_argument("--only", nargs="+", help="methods")
    parser.add_argument("--models", type=pathlib.Path, default=pathlib.Path("scoregeo-models"))
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    study = {"letters": Letters, "digits": Digits}[options.data](options.models, options.steps)
    if options.only:
        all_methods = study.methods()
        study.methods = lambda: {name: all_methods[name] for name in options.only}
    rows = []
    for row in run(study, options.pairs, options.tuning):
        rows.append(row)
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
        write_rows(options.out, rows)


if __name__ == "__main__":
    main()
