"""Check which places of idle blocks go with which number of devices, without loading PyTorch."""

from __future__ import annotations

from neuroal.errors import UserError


def check_offload(offload: str, devices: int) -> None:
    """Raise `UserError` if a number of devices does not go with the place of idle blocks."""
    if offload == "devices" and devices == 1:
        raise UserError(
            "offload=devices: keeps the blocks on several devices, but devices=1; use devices=2 or "
            "more, or offload=blocks"
        )
    if devices > 1 and offload in ("blocks", "disk"):
        raise UserError(
            f"devices={devices}: every device holds the whole model, so offload={offload} saves "
            "no memory; use devices=1, offload=none, or offload=devices"
        )
