"""Show that nothing is lost, and that every failure is one line: kills, malformed inputs, races."""
