"""Ways to switch a whole server off and on (DESIGN §7). When, `power_feed.server_switch` decides."""
