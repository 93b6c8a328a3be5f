"""What a context's own level says of its effects, and where contexts without controls start."""
