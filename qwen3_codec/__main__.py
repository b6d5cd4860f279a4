import sys

from .runtime.console import importing

with importing(__name__):
    from .cli.main import main

sys.exit(main())
