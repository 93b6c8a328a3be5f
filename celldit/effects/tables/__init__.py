"""Effects that others measured: read, matched to a model's genes, and used as far as they hold."""
