"""Several screens as one."""
