"""The process around the decisions: sockets, Redis, clocks, metrics and the one owner of every request."""
