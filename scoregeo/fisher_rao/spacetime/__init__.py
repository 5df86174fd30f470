"""The spacetime of a diffusion model: points with a noise level."""
