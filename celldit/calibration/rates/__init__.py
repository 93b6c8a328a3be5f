"""Mean rates of genes in groups of cells, and their ratios."""
