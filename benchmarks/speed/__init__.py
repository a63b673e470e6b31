"""How fast dislab is, beside what a user would run instead: one script per part."""
