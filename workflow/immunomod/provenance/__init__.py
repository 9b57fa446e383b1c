"""What a run was made with and how it went: settings, software, time and memory, methods, sources, and its RO-Crate."""

from immunomod.provenance.software import config_text, versions

__all__ = ["config_text", "versions"]
