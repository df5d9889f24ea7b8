"""Millions of photos over a Ray cluster: label maps as Parquet, every photo exactly once.

`job`, `folder_input`, `room` and `deaths` need no package; `parquet_input`, `tables` and `stages`
need pyarrow; only `pipeline` imports Ray. `docs/large_folders.md` tells how it is used.
"""
