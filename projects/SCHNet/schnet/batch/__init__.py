"""Parsing many photos into a folder: what is done, what is left, and the threads that do it."""
