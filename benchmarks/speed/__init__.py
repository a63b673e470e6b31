"""Measure the speed of dislab beside what a user would run instead: one script per part."""
