"""Where a farm's power is measured: one Protocol (`interface`), one registry (`registry.SOURCES`).

Rule: a source says what was measured and when. It judges nothing and fills no gap.
"""
