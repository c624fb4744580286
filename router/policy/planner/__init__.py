"""The planner: which configuration runs where, and which share of each class goes to which site. Pure.

Rule: a plan is a function of a problem object alone. The solver stops on gap or node count, never on the
wall clock, so that runs repeat (DESIGN §6). `highspy` and numpy come with the extra `plan`; only `solver`,
and what imports it, needs them.
"""
