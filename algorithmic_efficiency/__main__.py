"""`python -m algorithmic_efficiency` is `algoeff`."""

import sys

from algorithmic_efficiency.cli import main

if __name__ == '__main__':
  sys.exit(main())
