"""Sizes as a person reads them."""

from __future__ import annotations


def format_size(size_bytes: float) -> str:
    """`0 B`, `812 B`, `3.4 kB`, `120 MB`; decimal units, as disks and networks are sold."""
    if size_bytes < 1000:
        return f"{size_bytes:.0f} B"
    units = iter(("kB", "MB", "GB", "TB"))
    unit = "B"
    while size_bytes >= 999.5 and (larger := next(units, None)):
        size_bytes, unit = size_bytes / 1000, larger
    return f"{size_bytes:.1f} {unit}" if size_bytes < 99.95 else f"{size_bytes:.0f} {unit}"
