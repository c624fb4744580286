"""Long measurements; each folder has its own command.

What `scripts/compile` copies of them (the governor's) stands before the rest, which is found here.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
