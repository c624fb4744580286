"""What signed records cost."""
