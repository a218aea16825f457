"""How XLA compiles in tests: in half the time, to programs that are hardly slower at small sizes.

Tests of rounding, memory and speed ask for the options of training.
"""

from __future__ import annotations

QUICK_FLAGS = '--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false'
AS_IN_TRAINING = {'xla_backend_optimization_level': 3, 'xla_cpu_use_fusion_emitters': True}
