"""The steps of language models are programs for TPUs too, though no TPU is at hand."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip('jax')
import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402
from jax import export  # noqa: E402

from algorithmic_efficiency.backends._jax_workload import JaxWorkload  # noqa: E402
from algorithmic_efficiency.backends.base import TaskCode  # noqa: E402
from algorithmic_efficiency.benchmark import registry  # noqa: E402
from algorithmic_efficiency.training import jax as training  # noqa: E402
from algorithmic_efficiency.training.options import StepOptions  # noqa: E402

pytestmark = pytest.mark.slow

KEY = jax.ShapeDtypeStruct((2,), np.uint32)


def exported(function, *arguments) -> str:
  program = export.export(function, platforms=['tpu'])(*arguments)
  assert program.platforms == ('tpu',)
  return program.mlir_module()


@pytest.mark.parametrize(
  ('name', 'at_smoke_size'),
  [('quick_lm', True), ('finewebedu_lm', True), ('finewebedu_lm', False)],
)
def test_train_and_evaluation_steps_export(name, at_smoke_size):
  definition = registry.workload(name)
  (budget, *_) = definition.suites.values()
  definition = definition.for_smoke() if at_smoke_size else definition
  task = TaskCode.of(definition, 'jax')
  workload = JaxWorkload(definition, task, budget, dtype=jnp.bfloat16)
  params, _ = jax.eval_shape(workload.init_model_fn, KEY)
  batch = task.data.fake_batch(definition, definition.batch_sizes.train, 0)
  optimizer = optax.adamw(1e-3)
  step = training.compile_train_step(workload, optimizer.update, StepOptions())
  state = jax.eval_shape(optimizer.init, params)
  train = exported(step, state, params, None, batch, KEY)
  weights = np.ones(batch['targets'].shape, np.float32)
  evaluate = exported(workload._eval_step, params, None, {**batch, 'weights': weights}, KEY)
  # At full size the logits are cut, and no array has the shape of all of them.
  shape = 'x'.join(map(str, (*batch['targets'].shape, definition.data.vocab_size)))
  for program in (train, evaluate):
    assert (f'tensor<{shape}xbf16>' in program) == at_smoke_size
    assert ('stablehlo.while' in program) != at_smoke_size
