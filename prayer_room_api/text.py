"""Makes sure that what people write is visible, and shows as it is written."""

import re
from unicodedata import category

from django.core.exceptions import ValidationError

# Unicode's Bidi_Control characters: after one, a line can show as something other than
# what is written.
_BIDI_CONTROL = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")

# Blank letters and a blank symbol: Hangul's fillers, and Braille's empty cell.
_BLANK = "\u115f\u1160\u2800\u3164\uffa0"

# Control, format, private and unassigned characters, marks that need a base letter, and
# separators.
_INVISIBLE = ("C", "M", "Z")


def validate_visible(text: str) -> None:
    """Refuse characters that change the direction, and text with nothing visible."""
    if found := _BIDI_CONTROL.search(text):
        raise ValidationError(
            "Remove the invisible character that changes the direction of the text, "
            f"U+{ord(found[0]):04X}.",
            code="direction",
        )
    if all(each in _BLANK or category(each).startswith(_INVISIBLE) for each in text):
        raise ValidationError("Write something visible.", code="invisible")
