"""From latent tokens to cells that can be analysed: counterfactuals and new cells, as AnnData."""
