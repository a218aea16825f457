"""A benchmark of neural-network training algorithms."""

# The clock binds its source of time, and starts the wall time of this process, before anything else
# can be imported.
from algorithmic_efficiency import clock as clock

__version__ = '0.2.0.dev0'
