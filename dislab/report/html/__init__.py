"""A results folder as web pages."""
