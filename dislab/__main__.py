"""`python -m dislab` is the same as `dislab`."""

import sys

from dislab.cli import main

sys.exit(main())
