"""Object storage by URI: what is no folder, and whether anybody answers where it is said to be."""

from __future__ import annotations

import hashlib
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from multimodal_rec.errors import StoreError

_ANSWERS_WITHIN_SECONDS = 10
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


def is_remote(uri: str | Path | None) -> bool:
    """Whether a store is told by URI, such as 's3://bucket/store', and not by a folder or kept in memory."""
    return uri is not None and "://" in str(uri)


def cache_folder(uri: str | Path | None) -> Path | None:
    """Where what frozen backbones gave is kept for the store at `uri`: beside it, or on this machine if it is remote.

    Features are many small files that are read again and again. None where the store is in memory: they are, too.
    """
    if uri is None:
        return None
    if not is_remote(uri):
        return Path(uri) / "cache"
    own = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(own).expanduser() / "multimodal-rec" / hashlib.sha256(str(uri).encode()).hexdigest()[:16]


def check_endpoint(uri: str | Path | None) -> None:
    """Raise `StoreError` where `uri` is on S3 and the server that the environment names for it does not answer.

    Any answer will do, a refusal as well: what it means is said when the store is opened. Without this, a wrong
    address is asked again and again for minutes. Stores elsewhere, and on S3 itself, are not looked at.
    """
    if uri is None or urlsplit(str(uri)).scheme != "s3":
        return
    name = next((name for name in _ENDPOINTS if os.environ.get(name)), None)
    if name is None:
        return
    endpoint = os.environ[name]
    if urlsplit(endpoint).scheme not in ("http", "https"):
        raise StoreError(f"{name} is '{endpoint}'. Expected a URL such as 'https://storage.example:9000'.")
    try:
        with urllib.request.urlopen(endpoint, timeout=_ANSWERS_WITHIN_SECONDS):
            pass
    except urllib.error.HTTPError:
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        # The store's own client may have been told to trust it.
        if not isinstance(reason, ssl.SSLError):
            raise StoreError(
                f"nobody answers at '{endpoint}' ({reason}), where the store '{uri}' is asked for. Expected the "
                f"address of an S3-compatible server. Correct {name}, or start the server."
            ) from error


def reason_of(error: Exception) -> str:
    """What went wrong at a URI and what to do, in few words; a client's own words where it is nothing common."""
    text = str(error)
    for mark, reason in _REASONS.items():
        if mark in text:
            return reason
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


_LONGEST = 500
# What servers and the client answer, most telling first.
_REASONS = {
    "NoSuchBucket": "there is no such bucket. Create it, or correct the URI",
    "InvalidAccessKeyId": "the server does not know the access key. Correct AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret does not belong to the access key. Correct AWS_SECRET_ACCESS_KEY",
    "AccessDenied": "these credentials may not read or write there. Ask for access to the bucket and the prefix",
    "Failed to get AWS credentials": (
        "there are no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role gives them"
    ),
    "BadScheme": "the server is addressed without encryption. Set AWS_ALLOW_HTTP=true if that is meant",
    "dns error": "the name of the server is not known. Correct the URI or AWS_ENDPOINT_URL",
    "Connection refused": "nobody answers there. Correct AWS_ENDPOINT_URL, or start the server",
}
