"""Which ranges activations have on real audio, for what is quantised before it runs."""
