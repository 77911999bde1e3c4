"""What people write has to be there to be seen, and seen as it is."""

import re
from unicodedata import category

from django.core.exceptions import ValidationError

# All that Unicode gives the property Bidi_Control: after one of them a line can be
# shown as another one than is written.
_BIDI_CONTROL = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")

# Letters and a symbol of no ink: the fillers of Hangul, and Braille's empty cell.
_BLANK = "\u115f\u1160\u2800\u3164\uffa0"

# Control, format, private and unassigned characters, marks that need a letter to stand
# on, and separators.
_INVISIBLE = ("C", "M", "Z")


def validate_visible(text: str) -> None:
    """Refuse characters that turn the direction, and a text of nothing visible."""
    if found := _BIDI_CONTROL.search(text):
        raise ValidationError(
            "Remove the invisible character that changes the direction of the text, "
            f"U+{ord(found[0]):04X}.",
            code="direction",
        )
    if all(each in _BLANK or category(each).startswith(_INVISIBLE) for each in text):
        raise ValidationError("Write something that can be seen.", code="invisible")
