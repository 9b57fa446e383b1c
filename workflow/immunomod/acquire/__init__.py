"""Floor 1, per sample: bytes from GEO, a mirror or the user's disk, each one in a ledger."""

from immunomod.acquire.dataset import AcquireSettings, acquire_samples
from immunomod.acquire.ledger import gather_ledger

__all__ = ["AcquireSettings", "acquire_samples", "gather_ledger"]
