"""`python -m fastserve.cli`: the command where its script is not on the PATH."""

import sys

from fastserve.cli.main import main

sys.exit(main())
