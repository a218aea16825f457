"""Metrics of every kind in both frameworks: the same numbers for any evaluation batch size."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import metric_toys
import numpy as np
import pytest

from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.errors import UserError

pytest.importorskip('sacrebleu')

KEY_DATA = np.array([1, 2], np.uint32)


@dataclasses.dataclass(frozen=True)
class Toy:
  """The toy task in one framework, with parameters."""

  backend: Any
  base: Any
  params: Any
  state: Any

  def evaluate(self, size: int = 16, **options: Any) -> dict[str, float]:
    return metric_toys.evaluate(self.backend, self.base, self.params, self.state, size, **options)

  def changed(self, **functions: Any) -> Any:
    """The task with other functions in its model file, or without those that are None."""
    task = metric_toys.task(self.base, self.backend.name)
    code = {k: v for k, v in {**vars(task.model), **functions}.items() if v is not None}
    return dataclasses.replace(task, model=SimpleNamespace(**code))  # type: ignore[arg-type]


@pytest.fixture(scope='module', params=['jax', 'pytorch'])
def toy(request) -> Toy:
  if request.param == 'jax':
    pytest.importorskip('jax')
    import jax_toy as toys

    from algorithmic_efficiency.backends import jax as framework
  else:
    pytest.importorskip('torch')
    import torch_toy as toys

    from algorithmic_efficiency.backends import torch as framework
  devices = Devices(platform='cpu', num_devices=1, num_threads=1)
  backend = framework.start(devices)
  base = toys.task()
  workload = backend.workload(toys.definition(), base, toys.BUDGET)
  return Toy(backend, base, *workload.init_model_fn(backend.key(KEY_DATA)))


@pytest.fixture(scope='module')
def whole(toy) -> dict[str, float]:
  return toy.evaluate(50)


@pytest.mark.parametrize('size', [1, 7, 64])
def test_the_numbers_do_not_depend_on_the_batch_size(toy, whole, size):
  found = toy.evaluate(size)
  assert found.keys() == whole.keys()
  assert found == pytest.approx(whole, rel=1e-6)
  exact = [name for name in found if 'loss' not in name and 'precision' not in name]
  assert [found[name] for name in exact] == [whole[name] for name in exact]


def test_each_kind_of_metric_gives_its_numbers(whole):
  parts = [f'validation/accuracy/{part}' for part in metric_toys.PARTS]
  said = [f'validation/histogram/said_{part}' for part in metric_toys.PARTS]
  true = [f'validation/histogram/is_{part}' for part in metric_toys.PARTS]
  assert sum(whole[name] for name in said) == sum(whole[name] for name in true) == 50.0
  correct = sum(whole[p] * whole[n] for p, n in zip(parts, true, strict=True))
  assert whole['validation/accuracy'] == pytest.approx(correct / 50)
  assert 0.0 < whole['validation/average_precision'] < 1.0
  assert 0.0 < whole['validation/bleu'] < 100.0
  assert whole['validation/num_examples'] == 50


def test_what_is_generated_is_of_the_first_examples_and_told_which_time_is_the_last(toy, whole):
  generation = metric_toys.definition().generation
  alone = [
    toy.evaluate(
      7,
      definition=metric_toys.definition(
        7, generation=dataclasses.replace(generation, max_examples=number)
      ),
    )['validation/bleu']
    for number in (29, 50)
  ]
  assert alone[0] == whole['validation/bleu'] != alone[1]
  assert toy.evaluate(is_last=True)['validation/bleu'] != whole['validation/bleu']


def test_a_probe_has_its_own_examples_and_metrics(toy):
  found = toy.evaluate(7, splits=('faint',))
  parts = [f'faint/accuracy/{part}' for part in metric_toys.PARTS]
  assert found.keys() == {'faint/accuracy', *parts, 'faint/bleu', 'faint/num_examples'}
  assert found['faint/num_examples'] == 20
  assert found == pytest.approx(toy.evaluate(64, splits=('faint',)), rel=1e-6)


def test_nothing_is_generated_that_nobody_asks_for(toy):
  def generate(*arguments, **options):
    raise AssertionError

  found = toy.evaluate(code=toy.changed(generate=generate), generate=False)
  assert 'validation/bleu' not in found and 'validation/average_precision' in found


def test_generation_leaves_the_parameters_as_they_are(toy):
  before = toy.backend.change_marker(toy.params)
  toy.evaluate()
  assert toy.backend.change_marker(toy.params) == before


def test_a_task_without_generate_is_named(toy):
  with pytest.raises(UserError, match=r'toy \(task toy\), split validation: .* must have generate'):
    toy.evaluate(code=toy.changed(generate=None))


def test_an_output_of_the_whole_batch_is_refused_with_the_metrics_that_read_it(toy):
  step = metric_toys.task(toy.base, toy.backend.name).model.eval_step

  def eval_step(definition, batch, logits):
    sums, outputs = step(definition, batch, logits)
    return sums, {**outputs, 'scores': outputs['scores'].sum()}

  said = r"split validation: The first axis .* of 16 rows; .* 'scores' is \[\].* average_precision"
  with pytest.raises(UserError, match=said):
    toy.evaluate(code=toy.changed(eval_step=eval_step))


@pytest.mark.parametrize(
  ('change', 'said'),
  [
    (lambda sums, outputs: sums, 'two dicts, sums and outputs; it returned dict'),
    (lambda sums, outputs: (sums, None), 'two dicts, .* it returned dict, NoneType'),
    (lambda sums, outputs: (sums, outputs, {}), 'it returned dict, dict, dict'),
    (lambda sums, outputs: (sums, {**outputs, 'scores': ['a']}), "array; 'scores' is list"),
  ],
)
def test_a_step_that_gives_something_else_than_sums_and_outputs_is_told(toy, change, said):
  step = metric_toys.task(toy.base, toy.backend.name).model.eval_step
  code = toy.changed(eval_step=lambda *arguments: change(*step(*arguments)))
  with pytest.raises(UserError, match=rf'toy \(task toy\), split validation: .*{said}'):
    toy.evaluate(code=code)


def test_frozen_parameters_take_part_in_what_is_generated(toy):
  names = {'jax': ('Dense_0',), 'pytorch': ('dense',)}
  definition = metric_toys.definition(frozen_params=names)
  budget = next(iter(definition.suites.values()))
  workload = toy.backend.workload(definition, toy.base, budget)
  params, state = workload.init_model_fn(toy.backend.key(KEY_DATA))
  found = metric_toys.evaluate(
    toy.backend, toy.base, params, state, 16, definition=definition, splits=('validation',)
  )
  assert 0 < found['validation/bleu'] <= 100


def test_a_build_that_gives_no_model_is_told(toy):
  definition = metric_toys.definition()
  code = toy.changed(build=lambda *_, **__: None)
  said = r'toy \(task toy\): build must return a .*Module; it returned None'
  with pytest.raises(UserError, match=said):
    workload = toy.backend.workload(definition, code, next(iter(definition.suites.values())))
    workload.init_model_fn(toy.backend.key(KEY_DATA))


def test_outputs_of_step_and_generate_have_different_names(toy):
  generate = metric_toys.task(toy.base, toy.backend.name).model.generate

  def twice(*arguments, **options):
    found = generate(*arguments, **options)
    return {**found, 'scores': found['words']}

  with pytest.raises(UserError, match='of different names; both give scores'):
    toy.evaluate(code=toy.changed(generate=twice))


def test_a_generate_that_gives_no_arrays_is_told(toy):
  with pytest.raises(UserError, match='Outputs must be arrays by name; they are NoneType'):
    toy.evaluate(code=toy.changed(generate=lambda *arguments, **options: None))


def test_a_generated_output_of_the_whole_batch_is_refused_too(toy):
  generate = metric_toys.task(toy.base, toy.backend.name).model.generate

  def transposed(*arguments, **options):
    return {'words': generate(*arguments, **options)['words'].T}

  with pytest.raises(UserError, match=r"'words' is \[6, 16\]\. Read by: bleu\."):
    toy.evaluate(code=toy.changed(generate=transposed))


def test_few_batches_are_in_flight_and_outputs_come_in_order(toy):
  """Outputs of a batch are taken soon after the batch was, and none is left for the end.

  They have a row for each of its rows, also where a framework adds some to compile the same.
  """
  taken, seen = [], []

  def batches():
    for number in range(12):
      taken.append(number)
      rows = metric_toys.batch(3, number)
      yield {**rows, 'inputs': np.full_like(rows['inputs'], number)}

  def see(batch, outputs):
    assert len(outputs['scores']) == len(batch['inputs']) == 3
    seen.append((batch['inputs'][0, 0], len(taken)))

  workload = toy.backend.workload(
    metric_toys.definition(4), metric_toys.task(toy.base, toy.backend.name), metric_toys.BUDGET
  )
  toy.backend.eval_sums(
    workload,
    toy.params,
    toy.state,
    batches(),
    KEY_DATA,
    on_outputs=see,
  )
  assert [number for number, _ in seen] == [*range(12)]
  assert all(ahead - number <= 3 for number, ahead in seen)


def test_bytes_of_one_process_come_back(toy):
  assert toy.backend.gather(b'state') == [b'state']
