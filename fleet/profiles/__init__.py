"""Profiles that come with Heron: the published figures, the model fitted to them, and how well it fits.

Rule: no file of a third party is shipped, only figures with their source. `heron profile check` fits the
model to the figures again and prints its error on every one of them.
"""
