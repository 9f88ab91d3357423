"""`python -m bev_ops`: what is installed, what will run where, and whether it computes the right thing."""

import sys

from bev_ops.doctor import main

sys.exit(main())
