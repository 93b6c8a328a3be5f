"""Maps of cells from one condition to another: transport, edit and inversion."""
