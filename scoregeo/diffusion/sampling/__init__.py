"""What a trained score does: samples, likelihoods, guidance."""
