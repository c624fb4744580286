"""Property tests look at the same examples in every run: a red run must mean a change, not a dice throw.

`HYPOTHESIS_PROFILE=search scripts/test …` looks for new ones.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
