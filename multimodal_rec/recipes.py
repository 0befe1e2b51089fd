"""What the recipes under `datasets/` have in common: they read one edition of their source, and no other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from multimodal_rec.errors import CatalogueError


def verify_source(source: Path, checksums: Mapping[str, str], *, beside: str = "") -> None:
    """None, if the files of `source` are byte for byte the expected ones; else raises `CatalogueError`.

    `checksums`: file name → SHA-256 in hexadecimal digits. `beside`: what else the folder should hold, for the message.
    """
    for name, expected in checksums.items():
        path = source / name
        if not path.is_file():
            folder = " and ".join(filter(None, (", ".join(checksums), beside)))
            raise CatalogueError(f"'{path}' is missing. Expected a folder with {folder}.")
        with path.open("rb") as file:
            got = hashlib.file_digest(file, "sha256").hexdigest()
        if got != expected:
            raise CatalogueError(
                f"'{path}' has the SHA-256 {got}. Expected {expected}: this recipe was written for that edition. "
                "Fetch it again, or check the columns and change CHECKSUMS."
            )
