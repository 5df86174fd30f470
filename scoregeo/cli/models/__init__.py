"""Commands that make a model or ask it: ``train``, ``sample``, ``likelihood``, ``evaluate``, one file for each."""
