"""Options of XLA for programs that a test runs once or twice: they compile in a third of the time.

Programs whose rounding or speed is tested are compiled as they are in training.
"""

from __future__ import annotations

OPTIONS = {'xla_backend_optimization_level': 0, 'xla_cpu_use_fusion_emitters': False}
