"""Stage one: the autoencoder, from its linear start."""
