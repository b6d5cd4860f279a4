"""The workbench: is a streaming step that someone changed still right, and if not, what is it?

`judging` runs the `checks` on a `bench` and asks for the `causes`: by comparison with `mistakes` that run, and by where
the step's operators depart from the package's (`departure`).
"""

from .judgement import Judgement, Row, Streamed
from .judging import judge

__all__ = ["Judgement", "Row", "Streamed", "judge"]
