"""Methods that work on the latents of an autoencoder."""
