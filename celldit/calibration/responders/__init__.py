"""Which of the perturbed cells responded, and how many of them do."""
