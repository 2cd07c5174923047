"""E-mail addresses and public IP addresses in text, replaced by addresses that belong to nobody."""

import ipaddress
import re
from itertools import cycle

# The ones FineWeb put in: example.com and .org are reserved; the IP addresses answered nobody when FineWeb chose them.
EMAILS = ("email@example.com", "firstname.lastname@example.org")
ADDRESSES = ("22.214.171.124", "126.96.36.199", "188.8.131.52", "184.108.40.206", "220.127.116.11", "18.104.22.168")

# Every part has the length that RFC 5321 allows at most, so that no text takes long.
_EMAIL = re.compile(
    r"(?<!\w)\w[\w.!#$%&'*+/=?^`{|}~-]{0,63}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?!\w)"
)
_BETWEEN_DOTS = re.compile(r"\.[0-9]{1,3}\.")  # in few texts, and faster to look for
_IPV4 = re.compile(r"(?<![\w.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?!\.?\w)")


def mask_personal_data(text: str) -> str:
    """Replace e-mail addresses and public IPv4 addresses; private and reserved ones, and wrong ones, stay.

    The replacements are taken in turn, from the first for each text.
    """
    if "@" in text:
        emails = cycle(EMAILS)
        text = _EMAIL.sub(lambda match: next(emails), text)
    if _BETWEEN_DOTS.search(text):
        addresses = cycle(ADDRESSES)
        text = _IPV4.sub(lambda match: next(addresses) if _is_public(match[0]) else match[0], text)
    return text


def _is_public(address: str) -> bool:
    try:
        return ipaddress.IPv4Address(address).is_global
    except ValueError:
        return False
