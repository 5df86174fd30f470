"""Walking paths over real mountains: the Stein metric of a height is the land itself, made steeper.

    python examples/terrain.py [--out terrain.png] [--quick]

prints lengths and climbs of geodesics and of straight lines, and draws them.
"""

import argparse

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.colors import LightSource, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from PIL import Image
from scipy.interpolate import RegularGridInterpolator

from scoregeo import FunctionScore, GraphInit, SpectralNewton, SteinMetric, datasets, geodesic, verify

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="terrain.png", help="the picture to write")
parser.add_argument("--quick", action="store_true", help="one path in place of four, fewer digits, a coarser picture")
options = parser.parse_args()
jax.config.update("jax_enable_x64", True)

# Heights about the Jacksboro fault in Tennessee, which come with matplotlib: in km, means over 2 x 2 of its places.
data = datasets.real("terrain")
grid = np.asarray(data.undo(data.points)).reshape(344, 403, 3)[:, :402].reshape(172, 2, 201, 2, 3).mean((1, 3))
east, north, heights = jnp.asarray(grid[0, :, 0]), jnp.asarray(grid[:, 0, 1]), jnp.asarray(grid[..., 2])


def weights(at, centers, width=0.25):
    """Gaussian weights of all ``centers`` seen from each of ``at``, of standard deviation ``width`` in km; sum 1."""
    return jax.nn.softmax(-0.5 * ((jnp.asarray(at)[..., None] - centers) / width) ** 2)


def height(place, east, north, heights):
    """Kilometres above the sea: all heights, averaged by `weights`. Smooth to any order, on the grid and between."""
    return weights(place[1], north) @ heights @ weights(place[0], east)


# Any gradient field makes a Stein metric, G = I + strength grad h grad h^T. It is that of the surface
# (x, y, sqrt(strength) h): the land with its heights eightfold, where one kilometre up is as long as eight on level
# ground, which is the price of climbing in Naismith's rule for walkers.
STEEPER = 8.0
score = FunctionScore(jax.grad(height), east, north, heights, conservative=True)
metric = SteinMetric(score, strength=STEEPER**2)

PAIRS = {"A": ((6.0, 24.0), (20.0, 3.0)), "B": ((3.0, 8.0), (22.0, 27.0))}
PAIRS |= {"C": ((12.0, 3.0), (27.0, 14.0)), "D": ((3.0, 29.0), (24.0, 20.0))}
# Between mountains there are many geodesics. The shortest path along the edges of a grid leads to a short one.
steps = (jnp.arange(0.5, most, 1.0 if options.quick else 0.5) for most in (29.5, 31.5))
nodes = jnp.stack(jnp.meshgrid(*steps), -1).reshape(-1, 2)
start = GraphInit(nodes, neighbors=24)
solver = SpectralNewton(max_elements=64, **({"rtol": 1e-5, "path_rtol": 1e-2} if options.quick else {}))
heights_at = jax.jit(jax.vmap(height, (0, None, None, None)))


def lifted(places, scale):
    """Places ``(n, 2)`` on the surface whose heights are ``scale`` times those of the land: ``(n, 3)``."""
    return np.column_stack([places, scale * heights_at(jnp.asarray(places), east, north, heights)])


def measured(places):
    """Of a path in many small steps: length on the steeper land and on the ground, in km, and metres climbed."""
    steps = [np.diff(lifted(places, scale), axis=0) for scale in (STEEPER, 1.0)]
    return *(np.linalg.norm(step, axis=1).sum() for step in steps), 1000 * steps[1][:, 2].clip(0).sum()


t, paths, straight, climbs = np.linspace(0, 1, 20_001), {}, {}, {}
print("           geodesic                       straight line")
print("   steeper   ground  climb      steeper   ground  climb     error    defect")
for name, (x, y) in list(PAIRS.items())[: 1 if options.quick else None]:
    path = geodesic(metric, jnp.array(x), jnp.array(y), solver=solver, init=start)
    paths[name], straight[name] = np.asarray(path.evaluate(t)), x + t[:, None] * np.subtract(y, x)
    found, line = climbs[name] = measured(paths[name]), measured(straight[name])
    # Measured in space, step by step, the curve is as long as the solver says that the geodesic is. And diffrax, which
    # integrates the geodesic equation again from sample to sample, finds the same path.
    assert abs(found[0] - path.length) < (1e-4 if options.quick else 1e-6) * path.length
    numbers = "    ".join(f"{steeper:8.3f} {ground:8.3f} {climb:5.0f}m" for steeper, ground, climb in (found, line))
    print(f"{name} {numbers}   {path.error:.0e}   {verify(metric, path):.0e}")

# The picture: the map, and the steeper land itself, to scale.
x, y = np.linspace(0, 29.9, 300), np.linspace(0, 31.8, 319)
land = np.asarray(weights(y, north) @ heights @ weights(x, east).T)
earth = LinearSegmentedColormap.from_list("earth", ["#9fb3a0", "#cfcbae", "#e8dfc9", "#fbf8f2"])
shaded = LightSource(azdeg=315, altdeg=45).shade(land, earth, blend_mode="soft", vert_exag=4, dx=0.1, dy=0.1)
tilt, turn = 48, -42  # where the eye is, in degrees; far away, so that all lines of sight are parallel
a, b = np.deg2rad([tilt, turn])
eye = np.array([np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a)])
ground = RegularGridInterpolator((y, x), STEEPER * land, bounds_error=False, fill_value=-np.inf)


def seen(curve):
    """Which points of a curve ``(n, 3)`` no land hides on their way to the eye: ``(n, 1)``."""
    ways = curve[:, None] + np.linspace(0.3, 9, 90)[:, None] * eye
    return (ground(ways[..., 1::-1]) < ways[..., 2]).all(1, keepdims=True)


matplotlib.rcParams["font.size"] = 13
figure = Figure(figsize=(12.5, 6.3))
ax = figure.add_axes((0.055, 0.225, 0.365, 0.76))
view = figure.add_axes((0.395, 0.14, 0.56, 0.88), projection="3d", computed_zorder=False)
count = 100 if options.quick else 400
flat = {"rcount": count, "ccount": count, "shade": False, "linewidth": 0, "antialiased": False}
ax.imshow(shaded, origin="lower", extent=(x[0], x[-1], y[0], y[-1]), interpolation="bilinear")
ax.contour(x, y, land, levels=np.arange(0.3, 1.1, 0.1), colors="#4d4538", linewidths=0.4, alpha=0.6)
view.plot_surface(*np.meshgrid(x, y), STEEPER * land, facecolors=shaded, **flat)
low, high = 0.15 * STEEPER, 1.1 * STEEPER  # the block, whose southern and eastern sides follow
for (along, across), top, color in (((x, 0 * x), land[0], "#b5a994"), ((0 * y + x[-1], y), land[:, -1], "#c9bfab")):
    wall = [np.stack([along, along]), np.stack([across, across]), np.stack([0 * top + low, STEEPER * top])]
    view.plot_surface(*wall, color=color, **flat)
halo, entries = [withStroke(linewidth=4.5, foreground="white")], []
for name, color in zip(paths, ("#009E73", "#0072B2", "#D55E00", "#CC79A7"), strict=False):
    solid, dashed = {"linewidth": 2.6, "path_effects": halo}, {"linestyle": "--", "linewidth": 1.6}
    for places, style in ((straight[name], dashed), (paths[name], solid)):
        ax.plot(*places.T, color=color, **style)
        curve = lifted(places[::100], STEEPER)
        view.plot(*np.where(seen(curve), curve, np.nan).T, color=color, zorder=3, **style)
        view.plot(*np.where(seen(curve), np.nan, curve).T, color=color, zorder=2, alpha=0.3, linewidth=1.2)
    ends = paths[name][[0, -1]]
    for panel, spots in ((ax, ends), (view, lifted(ends, STEEPER))):
        panel.plot(*spots.T, "o", color=color, markeredgecolor="white", markersize=9, zorder=4)
    above = {"xytext": (0, 9), "textcoords": "offset points", "ha": "center", "fontsize": 15, "fontweight": "bold"}
    ax.annotate(name, ends[0], color=color, path_effects=halo, **above)
    (_, way, up), (_, line, climb) = climbs[name]
    label = f"{name}  {way:.1f} km, {up:,.0f} m up  (dashed: {line:.1f} km, {climb:,.0f} m up)"
    entries.append(Line2D([], [], color=color, linewidth=2.6, label=label))
ax.set(xlabel="east (km)", ylabel="north (km)", aspect="equal")
view.set(xlim=x[[0, -1]], ylim=y[[0, -1]], zlim=(low, high), proj_type="ortho")
view.view_init(tilt, turn)
view.set_box_aspect((np.ptp(x), np.ptp(y), high - low), zoom=1.07)
view.set_zticks(STEEPER * np.array([0.5, 1.0]), ["0.5", "1"])
for axis, label, pad in ((view.xaxis, "east (km)", 8), (view.yaxis, "north (km)", 8), (view.zaxis, "height (km)", 4)):
    axis.set_label_text(label)
    axis.labelpad = pad
    axis.pane.set_visible(False)
view.grid(False)
figure.text(0.445, 0.87, "the same paths on the land\nwith its heights eightfold,\nto scale")
for artist in (*view.collections, *view.lines):
    artist.set_clip_on(False)  # the corners of the land are outside of the panel
figure.legend(handles=entries, loc="lower center", ncols=2, frameon=False)
figure.savefig(options.out, dpi=100)
# Few colours: a third of the bytes.
Image.open(options.out).convert("RGB").quantize(128).save(options.out, optimize=True)
