"""Messages whose remedy no case carries out, and why."""
OTHERS: dict[tuple[str, str], str] = {}
