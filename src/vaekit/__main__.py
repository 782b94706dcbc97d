"""``python -m vaekit`` is the command line."""

import sys

from vaekit.cli import main

sys.exit(main())
