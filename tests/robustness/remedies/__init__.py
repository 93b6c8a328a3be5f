"""What messages tell to do, done: tables of wrong calls, of what is told, and of what helps."""
