"""Runs: their configuration, their records, and how they are carried out."""
