"""Splitting methods: a data step, then a denoiser, in turn."""
