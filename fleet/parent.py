"""Ties a process to its parent: not even a `kill -9` of the parent leaves it behind."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> bool:
    """Have the kernel kill this process when that parent ends; False: it has ended already.

    Raises:
        OSError: the kernel will not, or is not Linux.
    """
    if sys.platform != "linux":
        raise OSError(f"{sys.platform} cannot tie a process to its parent")
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"cannot tie to the parent: {os.strerror(ctypes.get_errno())}")
    return os.getppid() == parent_pid
