"""The check before a run: everything that can be known of a study in seconds, and every problem at once."""

from immunomod.preflight.study import Findings, check_file, check_study

__all__ = ["Findings", "check_file", "check_study"]
