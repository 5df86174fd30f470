"""Networks for faces of 256 x 256 pixels, laid out as those that were published and with random weights: do value, J v
and J^T w in single precision agree with diffusers on torch, how long do they take, and in how much memory?

    for stage in float64 float32 ours; do
        .venv-torch/bin/python benchmarks/faces.py $stage ncsnpp FOLDER --out benchmarks/results/faces-256.json
    done

and the same with `ddpm`. `.ci/torch` makes that environment. `float64` writes the network to FOLDER and what torch
computes with it in double precision, which is the judge, `float32` what torch computes in single precision, `ours` what
this library does. Each is a process of its own, so that a peak of memory is of one library alone, with the loading and
the compilation. Seconds are those of one call, with all that it computes: a J v has the value too, a J^T w a forward
pass of its own.
"""

import argparse
import json
import pathlib
import resource
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from timing import about, compiled

from scoregeo.adapters.diffusers import load_diffusers

sys.path.append(str(pathlib.Path(__file__).parents[1] / "tests" / "adapters"))
from golden_check import NAMES, apart
from published_networks import CELEBA, NCSNPP

# The settings and the timestep; that of `ncsnpp` is a noise level.
LAYOUTS = {"ncsnpp": (NCSNPP, 0.7), "ddpm": (CELEBA, 120)}


def with_torch(layout: str, folder: pathlib.Path, dtype: str) -> dict:
    """Value and products by torch, written to ``folder``, and what they took."""
    import diffusers
    import torch
    from torch_oracle import randomised, value_and_derivatives

    settings, t = LAYOUTS[layout]
    torch.manual_seed(0)
    unet = randomised(diffusers.UNet2DModel(**settings), 1).requires_grad_(False)
    scheduler = diffusers.ScoreSdeVeScheduler(sigma_max=348.0) if layout == "ncsnpp" else diffusers.DDPMScheduler()
    if dtype == "float64":
        unet.save_pretrained(folder / "unet")
        scheduler.save_pretrained(folder / "scheduler")
    numbers = getattr(torch, dtype)
    unet, step = unet.to(numbers), torch.tensor(float(np.float32(t)), dtype=numbers)
    side = settings["sample_size"]
    wall, cores = time.perf_counter(), time.process_time()
    found = value_and_derivatives(lambda x: unet(x, step).sample, (3, side, side), 2, numbers)
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cores}
    np.savez(folder / f"{dtype}.npz", **found)
    return {"seconds": seconds, "peak_MiB": peak()}


def with_ours(layout: str, folder: pathlib.Path) -> dict:
    """Value and products by this library, what they took, and how far both libraries are from double precision."""
    _, t = LAYOUTS[layout]
    exact, single = (dict(np.load(folder / f"{dtype}.npz")) for dtype in ("float64", "float32"))
    network = load_diffusers(folder).denoiser.net.unet
    x, v, w = (jnp.asarray(single[name]) for name in "xvw")

    def function(x):
        return network(x, jnp.float32(t))

    forward, to_compile_forward = compiled(lambda x, v: jax.jvp(function, (x,), (v,)), x, v)
    back, to_compile_back = compiled(lambda x, w: jax.vjp(function, x)[1](w)[0], x, w)
    buffers = {
        name: program.memory_analysis().temp_size_in_bytes / 2**20
        for name, program in (("J v", forward), ("J^T w", back))
    }
    print(json.dumps({"buffers_MiB": buffers}), flush=True)
    wall, cores = time.perf_counter(), time.process_time()
    value, jvp = jax.block_until_ready(forward(x, v))
    vjp = jax.block_until_ready(back(x, w))
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cores}
    ours = dict(zip(NAMES, (value, jvp, vjp), strict=True))
    return {
        "shape": list(network.shape),
        "seconds": seconds,
        "seconds of compilation": {clock: to_compile_forward[clock] + to_compile_back[clock] for clock in seconds},
        "buffers_MiB": buffers,
        "peak_MiB": peak(),
        "errors": {
            "torch in single precision": apart(single, exact),
            "scoregeo in single precision": apart(ours, exact),
            "between them": apart(ours, single),
        },
    }


def peak() -> float:
    """The most memory that this process has had, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=("float64", "float32", "ours"))
    parser.add_argument("layout", choices=LAYOUTS)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, help="a JSON file, whose other entries stay")
    options = parser.parse_args()
    row = about("jax", "jaxlib", "torch", "diffusers")
    if options.stage == "ours":
        row |= with_ours(options.layout, options.folder)
    else:
        row |= with_torch(options.layout, options.folder, options.stage)
    print(json.dumps(row, indent=1))
    if options.out is not None:
        report = json.loads(options.out.read_text()) if options.out.exists() else {}
        report.setdefault(options.layout, {})[options.stage] = row
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
