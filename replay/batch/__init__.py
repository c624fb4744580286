"""A file of requests, put through a router: OpenAI's Batch format in and out.

`lines`, `records`, `ids` and `pace` decide (pure); `files` reads and writes; `run` sends.
"""
