"""Networks that predict a denoised point, and what turns their output into a score."""
