"""Whether the Hugging Face hub can be reached: known in seconds, not after minutes of retries."""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from urllib.parse import urlsplit
from urllib.request import getproxies

PATIENCE = 3.0
"""Seconds after which a hub that does not answer counts as out of reach."""


@lru_cache(maxsize=1)
def unreachable() -> str | None:
    """Why the hub (or the proxy before it) cannot be reached; None if it can. Asked once."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(name, "").lower() in ("1", "true", "yes", "on"):
            return f"{name}={os.environ[name]}"
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    door = urlsplit(getproxies().get(urlsplit(hub).scheme, hub))
    port = door.port or (80 if door.scheme == "http" else 443)
    try:
        socket.create_connection((door.hostname or "", port), timeout=PATIENCE).close()
    except OSError as error:
        return f"{door.hostname}: {error}"
    return None
