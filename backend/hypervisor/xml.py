"""XML for libvirt, put together from elements and never from text."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, fromstring, register_namespace, tostring

NAMESPACE = "urn:kc:1"
register_namespace("kc", NAMESPACE)
# What XML 1.0 cannot say at all, not even as a reference.
_IMPOSSIBLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def element(tag: str, /, *children: Element | None, text: str = "", **attributes: str) -> Element:
    """Return an element; children that are None and attributes that are empty are left out."""
    made = Element(tag, {name: clean(value) for name, value in attributes.items() if value})
    made.text = clean(text) or None
    made.extend(child for child in children if child is not None)
    return made


def render(root: Element) -> str:
    """Return an element as text."""
    return tostring(root, encoding="unicode")


def parse(text: str) -> Element:
    """Return the root of a document that libvirt wrote."""
    return fromstring(text)  # noqa: S314 - libvirt's own output: it parsed and wrote it anew, without entities


def clean(text: str) -> str:
    """Return the text with what XML cannot say replaced."""
    return _IMPOSSIBLE.sub("\ufffd", text)


def escape_json(text: str) -> str:
    """Return a JSON text with what XML cannot say written as JSON escapes, so that nothing of it is lost."""
    return _IMPOSSIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def child_text(parent: Element | None, path: str) -> str:
    """Return the text of a descendant; empty where there is none."""
    return (parent.findtext(path) or "").strip() if parent is not None else ""


def attribute(parent: Element, path: str, name: str) -> str:
    """Return an attribute of a descendant; empty where there is none."""
    found = parent.find(path)
    return found.get(name, "") if found is not None else ""
