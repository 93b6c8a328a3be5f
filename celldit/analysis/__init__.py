"""What the measured cells of a screen say, without a model: interactions, doses."""
