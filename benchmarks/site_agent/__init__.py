"""What a whole site agent costs."""
