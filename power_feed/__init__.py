"""The power feed: what the wind gives, checked, to every site, over a direct stream and through Redis.

Rule: a measurement is marked, never mended; a step that was not measured stays without a value. The pure
modules (see the import contract in pyproject.toml) take time as an argument; `app` and what it composes are
the shell.
"""
