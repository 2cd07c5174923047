"""Characters that stand for something until the cleaning of a page ends: noncharacters of Unicode. A text that holds
them loses them first.
"""

import re

REMOVED = "\ufdd0"  # where something was taken out, until the punctuation around it is tidied
UNKNOWN = ("\ufded", "\ufdee")  # around the number of a template that is not known, until it is expanded or removed
TABLE = "\ufdef"  # where a table begins that is never closed
BREAK = "\ufdd1"  # an end of line inside a paragraph
LITERAL = {ord(char): 0xFDD2 + number for number, char in enumerate("[]{}|<>'=*#:;-_~!")}  # what would be markup
RESERVED = re.compile("[\ufdd0-\ufdef]")

_BACK = {chr(code): chr(char) for char, code in LITERAL.items()} | {BREAK: "\n"}


def put_back(text: str) -> str:
    """The text with what the marks stand for."""
    return RESERVED.sub(lambda match: _BACK.get(match[0], ""), text)
