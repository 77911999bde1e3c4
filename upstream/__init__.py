"""Makes and proves the patches that bring the fixes to django-prodserver.

No line of django-prodserver's own files is kept here: `series` describes the
changes, `edits` makes them in the source that `source` fetches.
"""
