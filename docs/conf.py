"""Sphinx reads this: `nox -s docs` builds the pages."""

import re
from pathlib import Path

project = "prodserver-celery5"
project_copyright = "2026, the prodserver-celery5 developers"
_package = Path(__file__).parent.parent / "prodserver_celery5/__init__.py"
release = re.findall(r'__version__ = "(.+)"', _package.read_text())[0]

extensions = ["myst_parser"]
html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
myst_heading_anchors = 3
# A name that stands in a table would be split at its hyphens.
smartquotes = False
