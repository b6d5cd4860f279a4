import sys

from .console import importing

with importing(__name__):
    from .cli import main

sys.exit(main())
