"""What perturbing a gene does to the gene itself, and which cells keep it all the same."""
