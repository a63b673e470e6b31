"""Malformed inputs, in families: each generator makes any number of cases from a seed."""
