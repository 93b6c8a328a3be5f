"""What to measure next: how conditions err together, and which of them teach most."""
