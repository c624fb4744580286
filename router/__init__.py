"""The router: speaks the OpenAI API to clients and sends every request to a site that can finish it.

`policy/` decides and knows no clock, socket or log; `live/` is the process around it. Nothing on a request's
path waits for Redis, disk or a solver.
"""
