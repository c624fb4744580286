"""What `heron` tells the shell."""

DONE = 0
BAD_RUN = 1
"""The work was done and ended badly, or could not be done; the message says how."""
CONFIGURATION = 2
"""Arguments, configuration or input files are wrong. argparse's own code too."""
INTERRUPTED = 130
"""Ctrl-C."""
NOT_READ = 141
"""Who read the output has gone, as `head` does: what a shell sees of a program that SIGPIPE ended."""
