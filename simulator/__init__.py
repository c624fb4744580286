"""A second driver of the decision code, on a virtual clock (DESIGN §9)."""
