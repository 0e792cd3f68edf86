"""Check quickly whether the Hugging Face hub can be reached.

The hub's client retries for minutes before it reports a connection failure.
"""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from urllib.parse import urlsplit
from urllib.request import getproxies

TIMEOUT = 1.2
"""Timeout of the connection attempt, in seconds; with it, an error appears within two."""


@lru_cache(maxsize=1)
def unreachable() -> str | None:
    """Return why the hub, or its proxy, cannot be reached; None if it can. Cached."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(name, "").lower() in ("1", "true", "yes", "on"):
            return f"{name}={os.environ[name]}"
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    address = urlsplit(getproxies().get(urlsplit(hub).scheme, hub))
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), timeout=TIMEOUT).close()
    except OSError as error:
        return f"{address.hostname}: {error}"
    return None
