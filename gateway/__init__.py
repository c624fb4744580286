"""OpenAI-compatible HTTP: read, forward, stream, answer errors. Used by the router, the site agent, the
emulated engines and the load generator, so that there is one data path to make fast and to trust.

Rule: nothing here knows sites, power or policy.
"""
