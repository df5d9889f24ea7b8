"""Millions of photos over a Ray cluster: label maps as Parquet, every photo exactly once.

`job` and `folder_input` need the standard library alone; `parquet_input`, `tables` and `stages`
pyarrow; only `pipeline` imports Ray. `docs/large_folders.md` tells how it is used.
"""
