from typing import Any

from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser


class BoundedJSONParser(JSONParser):
    """Parses JSON, and refuses what is nested too deeply for Python's parser."""

    def parse(self, *args: Any, **kwargs: Any) -> Any:
        """Parse a body."""
        try:
            return super().parse(*args, **kwargs)
        except RecursionError as error:
            raise ParseError("The JSON is nested too deeply.") from error
