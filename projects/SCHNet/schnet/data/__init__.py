"""Data sets: what they are, how they are read, augmented, mapped and loaded.

Importing registers nothing: call `schnet.data.catalog.register_datasets`.
"""
