"""What columns and labels of an AnnData mean: perturbations, doses, guides."""
