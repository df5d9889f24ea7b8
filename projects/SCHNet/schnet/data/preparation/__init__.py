"""From an official download to checked pairs and index files; what `datasets/*.py` share.

`sources` finds files in folders and zip archives, `pairs` checks one image with its labels,
`journal` remembers what earlier runs found, `splits` works on a whole split, `official` knows the
archives' folders, `report` sums up, and `command` is the scripts' command line.
`pascal_part`, `part_order` and `pascal_person_part_files` are about Pascal-Person-Part alone.
"""
