"""Exercises for the notebooks: `check("name", answer)` says what is wrong with an answer, and which mistake it looks
like.
"""

from .check import EXERCISES, check, progress, solution

__all__ = ["EXERCISES", "check", "progress", "solution"]
