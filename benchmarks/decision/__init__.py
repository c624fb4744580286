"""What one routing decision and one snapshot update cost, by policy and number of sites."""
