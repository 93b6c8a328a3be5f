"""What is known of perturbations beside their names, and whether it tells anything."""
