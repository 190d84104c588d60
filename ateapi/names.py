"""What names and labels may look like: RFC 1123 and the rules of Kubernetes for labels.

Each function returns what is wrong with a value, or an empty string when nothing is.
"""

import re
from collections.abc import Callable
from typing import Final

# Atespaces of the system itself, such as those of golden snapshots.
RESERVED_PREFIX: Final = "ate-"

DNS_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_DNS_SUBDOMAIN: Final = re.compile(
    r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*"
)
_QUALIFIED: Final = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")

_MAX_SUBDOMAIN: Final = 253
_MISSING: Final = "is required"
_LABEL_RULE: Final = (
    "must be 1 to 63 of a-z, 0-9 and -, and begin and end with a letter or digit (RFC 1123 label)"
)
_SUBDOMAIN_RULE: Final = (
    "must be at most 253 of a-z, 0-9, - and ., and each part between dots must begin and end with"
    " a letter or digit (RFC 1123 subdomain)"
)
_QUALIFIED_RULE: Final = (
    "1 to 63 of A-Z, a-z, 0-9, -, _ and ., beginning and ending with a letter or digit"
)

# What says what is wrong with a value, or nothing.
Check = Callable[[str], str]


def dns_label(value: str) -> str:
    """Check a name that is one label: actors, atespaces, namespaces, containers."""
    if DNS_LABEL.fullmatch(value):
        return ""
    return _LABEL_RULE if value else _MISSING


def new_atespace(value: str) -> str:
    """Check the name of an atespace that somebody wants to create, or to create something in."""
    if value.startswith(RESERVED_PREFIX):
        return f"must not begin with {RESERVED_PREFIX}: such atespaces are reserved"
    return dns_label(value)


def dns_subdomain(value: str) -> str:
    """Check a name that may have dots: objects of the catalog, prefixes of label keys."""
    if len(value) <= _MAX_SUBDOMAIN and _DNS_SUBDOMAIN.fullmatch(value):
        return ""
    return _SUBDOMAIN_RULE if value else _MISSING


def label_key(value: str) -> str:
    """Check the key of a label: an optional `prefix/`, then a name."""
    prefix, slash, name = value.rpartition("/")
    if slash and dns_subdomain(prefix):
        return f"key {value[:128]!r}: its prefix {_SUBDOMAIN_RULE}"
    if not _QUALIFIED.fullmatch(name):
        return f"key {value[:128]!r}: its name must be {_QUALIFIED_RULE}"
    return ""


def label_value(value: str) -> str:
    """Check the value of a label."""
    if not value or _QUALIFIED.fullmatch(value):
        return ""
    return f"value {value[:128]!r} must be empty or {_QUALIFIED_RULE}"
