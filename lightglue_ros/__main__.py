"""`python -m lightglue_ros`."""

import sys

from lightglue_ros.cli import main

sys.exit(main())
