"""Shared by all tests: threads, MKL path and allocator are set before anything imports paddle."""

import os

# One thread for each pytest-xdist worker, and for the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"

from distill.runtime import before_paddle

before_paddle()
