"""Pure decisions: what to send where, what to keep of a stream, how to continue it elsewhere.

Rule: no asyncio, clock, log, metric or network in here; time (`now`, monotonic seconds) and randomness
(`rng`) are arguments. The simulator runs these same objects.
"""
