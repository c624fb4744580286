"""Several processes behind one port: a small parent that owns the port, the operator's surface and the one
subscription to Redis, and workers that only forward (DESIGN §2).

Rule: nothing on a request's path waits for the parent. A worker has its own snapshot, queue and connections;
what the parent must not lose if a worker is killed stands in shared memory.
"""
