"""What only a GPU can show: a real engine's profile, sleep, and a cap kept by real watts (RESULTS.md)."""
