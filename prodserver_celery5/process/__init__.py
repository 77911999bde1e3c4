"""This very program: its restart, its patches before the first import, its memory."""
