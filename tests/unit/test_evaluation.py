from __future__ import annotations

import dataclasses
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Generation, Probe, Target
from algorithmic_efficiency.data.sources import TaskError
from algorithmic_efficiency.errors import UserError
from algorithmic_efficiency.metrics import derived
from algorithmic_efficiency.trial import evaluation
from algorithmic_efficiency.trust import IntegrityError

DEFINITION = dataclasses.replace(
  registry.workload('quick_vision').for_smoke(),
  metrics=('loss', 'ppl'),
  target=Target(metric='ppl', direction='min', validation=20.0),
)

TASK = SimpleNamespace(data=None, model=None, metrics=None)


def evaluate(
  sums,
  definition=DEFINITION,
  splits=('validation',),
  max_batches=None,
  seen=None,
  eval_sums=None,
):
  """An evaluation whose sums the backend gives; `seen` gets the batches of each split."""

  def known_sums(workload, params, model_state, batches, key_data, **options):
    batches = list(batches)
    if seen is not None:
      seen.append(batches)
    return {**sums, 'num_examples': (20.0, 1.0)}

  backend = SimpleNamespace(
    rank=0,
    world_size=1,
    eval_sums=eval_sums or known_sums,
    gather=lambda content: [content],
  )
  workload = SimpleNamespace(definition=definition, eval_batch_size=8)
  return evaluation.evaluate(
    backend,
    workload,
    TASK,
    params=None,
    model_state=None,
    root=None,
    key_data=np.zeros(2, np.uint32),
    splits=splits,
    max_batches=max_batches,
  )


@pytest.fixture(autouse=True)
def no_stream(monkeypatch):
  monkeypatch.setattr(
    evaluation.streams, 'eval_stream', lambda *_, **__: (batch for batch in 'abcd')
  )


def test_perplexity_is_that_of_the_whole_split_and_not_a_mean_of_perplexities():
  assert evaluate({'loss': (6.0, 3.0)}) == {
    'validation/loss': 2.0,
    'validation/ppl': math.exp(2.0),
    'validation/num_examples': 20,
  }


@pytest.mark.parametrize(('loss', 'expected'), [(1e4, math.inf), (math.inf, math.inf)])
def test_a_perplexity_beyond_floats_is_infinite_and_reaches_no_goal(loss, expected):
  ppl = evaluate({'loss': (loss, 1.0)})['validation/ppl']
  assert ppl == expected
  assert not DEFINITION.target.reached('validation', ppl)
  assert not dataclasses.replace(DEFINITION.target, validation=math.inf).reached('validation', ppl)


def test_a_loss_of_nothing_has_no_perplexity():
  assert math.isnan(evaluate({'loss': (0.0, 0.0)})['validation/ppl'])
  assert math.isnan(evaluate({'loss': (math.nan, 1.0)})['validation/ppl'])


def test_a_definition_without_perplexity_gets_none():
  definition = dataclasses.replace(
    DEFINITION, metrics=('loss',), target=dataclasses.replace(DEFINITION.target, metric='loss')
  )
  assert set(evaluate({'loss': (6.0, 3.0)}, definition)) == {
    'validation/loss',
    'validation/num_examples',
  }


def test_a_model_sums_what_is_not_derived():
  assert derived.summed(('loss', 'ppl', 'accuracy')) == ('loss', 'accuracy')


def test_a_partial_evaluation_takes_the_first_batches_of_each_split():
  seen: list[list[str]] = []
  sums = {'loss': (6.0, 3.0)}
  for max_batches in (None, 1, 3, 9):
    evaluate(sums, splits=('validation', 'test'), max_batches=max_batches, seen=seen)
  assert [''.join(batches) for batches in seen[::2]] == ['abcd', 'a', 'abc', 'abcd']
  assert seen[1::2] == seen[::2]


def test_the_training_split_has_its_own_prefix_and_no_number_of_examples():
  assert set(evaluate({'loss': (6.0, 3.0)}, splits=('eval_train', 'test'))) == {
    *('train/loss', 'train/ppl'),
    *('test/loss', 'test/ppl', 'test/num_examples'),
  }


def test_a_split_that_the_definition_lacks_is_left_out():
  splits = dataclasses.replace(DEFINITION.splits, test=None)
  definition = dataclasses.replace(DEFINITION, splits=splits)
  found = evaluate({'loss': (6.0, 3.0)}, definition, splits=('validation', 'test'))
  assert {name.split('/')[0] for name in found} == {'validation'}


def test_a_split_that_nobody_knows_is_refused():
  with pytest.raises(UserError, match=r"no split or probe 'tset'\. Did you mean 'test'\?"):
    evaluate({'loss': (6.0, 3.0)}, splits=('tset',))


class TestProbes:
  definition = dataclasses.replace(
    DEFINITION,
    metrics=('loss', 'ppl'),
    probes={'long': Probe(num_examples=9, metrics=('loss', 'recall'))},
  )

  def test_a_probe_has_its_own_metrics_under_its_name(self):
    sums = {'loss': (6.0, 3.0), 'recall': (1.0, 2.0)}
    assert evaluate(sums, self.definition, splits=('long',)) == {
      'long/loss': 2.0,
      'long/recall': 0.5,
      'long/num_examples': 20,
    }
    found = evaluate(sums, self.definition, splits=('validation', 'long'))
    assert {'validation/ppl', 'long/recall'} < set(found) and 'validation/recall' not in found

  def test_no_evaluation_takes_one_unless_it_is_told_to(self):
    assert not any('long' in name for name in evaluate({'loss': (6.0, 3.0)}, self.definition))


class Words:
  """A metric of an output, which counts the examples that it has seen."""

  outputs = ('words',)

  def __init__(self, name='words'):
    self.name = name

  def update(self, state, outputs, batch):
    assert set(outputs) == {'words'}
    np.testing.assert_array_equal(outputs['words'], batch['index'])
    return [*(state or []), *batch['index'].tolist()]

  def merge(self, states):
    return [index for state in states for index in state]

  def compute(self, sums, state):
    return {self.name: float(len(state or [])), f'{self.name}/last': float((state or [-1])[-1])}


class TestOutputs:
  """Metrics of outputs, over a backend that gives back the index of each row."""

  def evaluate(
    self, size=4, num=10, rank=0, world_size=1, others=(), metric=None, give=('words',), **options
  ):
    definition = options.pop('definition', None) or dataclasses.replace(
      DEFINITION,
      metrics=('loss', 'words'),
      target=dataclasses.replace(DEFINITION.target, metric='loss'),
    )

    def eval_sums(*arguments, on_outputs, generating):
      self.generating = generating
      self.reads = on_outputs is not None
      rows = size // world_size
      for start in range(0, num, size):
        index = np.arange(start + rank * rows, start + (rank + 1) * rows)
        batch = {'index': index, 'weights': (index < num).astype(np.float32)}
        if on_outputs is not None:
          on_outputs(batch, dict.fromkeys(give, index))
      return {'loss': (6.0, 3.0), 'num_examples': (float(num), 1.0)}

    backend = SimpleNamespace(
      rank=rank,
      world_size=world_size,
      eval_sums=eval_sums,
      gather=lambda content: [*others, content],
    )
    task = SimpleNamespace(
      data=None,
      model=None,
      metrics=SimpleNamespace(metrics=lambda definition, root: {'words': metric or Words()}),
    )
    return evaluation.evaluate(
      backend,
      SimpleNamespace(definition=definition, eval_batch_size=size),
      task,
      params=None,
      model_state=None,
      root=None,
      key_data=np.zeros(2, np.uint32),
      **{'splits': ('validation',), **options},
    )

  def generated(self, **changes):
    return dataclasses.replace(
      DEFINITION,
      metrics=('loss', 'words'),
      target=dataclasses.replace(DEFINITION.target, metric='loss'),
      generation=Generation(metrics=('words',), **changes),
    )

  @pytest.mark.parametrize('size', [1, 3, 4, 10, 64])
  def test_a_metric_sees_each_example_once_and_no_padding(self, size):
    found = self.evaluate(size)
    assert (found['validation/words'], found['validation/words/last']) == (10.0, 9.0)
    assert self.generating is None

  def test_states_of_all_ranks_are_merged_in_their_order_and_those_without_rows_left_out(self):
    first = pickle.dumps([100, 101])
    found = self.evaluate(4, 10, rank=1, world_size=2, others=[first])
    assert (found['validation/words'], found['validation/words/last']) == (2.0 + 4.0, 7.0)
    found = self.evaluate(4, 1, rank=1, world_size=2, others=[pickle.dumps([0])])
    assert (found['validation/words'], found['validation/words/last']) == (1.0, 0.0)

  @pytest.mark.parametrize('size', [1, 3, 4, 64])
  @pytest.mark.parametrize('limit', [1, 4, 6, 10, 11])
  def test_generated_metrics_take_the_first_examples_whatever_the_batch(self, size, limit):
    found = self.evaluate(size, definition=self.generated(max_examples=limit), is_last=False)
    assert found['validation/words'] == min(limit, 10)
    assert found['validation/words/last'] == min(limit, 10) - 1
    assert (self.generating.num_batches, self.generating.is_last) == (-(-limit // size), False)

  @pytest.mark.parametrize(('rank', 'number', 'last'), [(0, 4, 5), (1, 2, 3)])
  def test_so_do_the_ranks_together(self, rank, number, last):
    """Of batches of four each of two ranks has two; examples 0 to 5 are generated."""
    definition = self.generated(max_examples=6)
    found = self.evaluate(4, rank=rank, world_size=2, definition=definition)
    assert (found['validation/words'], found['validation/words/last']) == (number, last)

  def test_a_target_on_a_generated_metric_has_all_its_values_by_one_search(self):
    self.evaluate(definition=self.generated(), is_last=True)
    assert self.generating.is_last
    target = Target(metric='words', direction='max', validation=1.0)
    self.evaluate(definition=dataclasses.replace(self.generated(), target=target), is_last=True)
    assert not self.generating.is_last

  def test_generated_metrics_are_left_out_where_nothing_is_generated(self):
    for options in (
      {'definition': self.generated(), 'generate': False},
      {'definition': self.generated(splits=('test',))},
    ):
      assert 'validation/words' not in self.evaluate(**options)
      assert self.generating is None and not self.reads

  def test_a_probe_generates_what_it_names(self):
    probe = Probe(num_examples=9, metrics=('words',))
    definition = dataclasses.replace(self.generated(splits=('test',)), probes={'p': probe})
    found = self.evaluate(definition=definition, splits=('p',))
    assert found['p/words'] == 10.0 and self.generating.is_last
    assert found.keys() == {'p/words', 'p/words/last', 'p/num_examples'}

  @pytest.mark.parametrize(
    ('options', 'said'),
    [
      ({'give': ('other',)}, "'words' reads the output 'words', which eval_step must .*: other"),
      ({'metric': Words('word')}, "'words' must give numbers of that name.*; one is 'word'"),
    ],
  )
  def test_code_that_does_not_fit_is_named_with_task_and_split(self, options, said):
    with pytest.raises(
      UserError, match=rf'quick_vision \(task vision\), split validation: .*{said}'
    ):
      self.evaluate(**options)

  def test_so_is_what_generate_must_give(self):
    with pytest.raises(UserError, match="'words' reads the output 'words', which generate must"):
      self.evaluate(give=(), definition=self.generated())

  def test_the_metric_of_the_target_must_give_its_own_number(self):
    target = Target(metric='words', direction='max', validation=1.0)
    definition = dataclasses.replace(DEFINITION, metrics=('words',), target=target)

    class Parts(Words):
      def compute(self, sums, state):
        return {'words/a': 1.0}

    with pytest.raises(UserError, match="target must give the number 'words'; it gives words/a"):
      self.evaluate(definition=definition, metric=Parts())


class Gives(Words):
  """A metric one of whose functions gives something else; an exception is raised."""

  def __init__(self, function, value, **attributes):
    super().__init__()
    self.function, self.value = function, value
    self.__dict__.update(attributes)

  def give(self, function, *arguments):
    if self.function != function:
      return getattr(super(), function)(*arguments)
    if isinstance(self.value, Exception):
      raise self.value
    return self.value

  def update(self, *arguments):
    return self.give('update', *arguments)

  def merge(self, *arguments):
    return self.give('merge', *arguments)

  def compute(self, *arguments):
    return self.give('compute', *arguments)


WHERE = r'quick_vision \(task vision\), '


@pytest.mark.parametrize('function', ['update', 'merge', 'compute'])
def test_code_of_a_metric_that_fails_is_named_with_task_split_and_metric(function):
  with pytest.raises(
    TaskError, match=f'{WHERE}split validation, metric words, {function}: OSError: no disk'
  ) as caught:
    TestOutputs().evaluate(metric=Gives(function, OSError('no disk')))
  assert isinstance(caught.value.__cause__, OSError)


def test_so_is_a_state_that_no_other_process_could_get():
  with pytest.raises(TaskError, match=f'{WHERE}split validation, metric words, the state: '):
    TestOutputs().evaluate(metric=Gives('update', lambda: None))


@pytest.mark.parametrize('error', [MemoryError('none'), UserError('A package is missing.')])
def test_what_says_enough_by_itself_is_raised_as_it_is(error):
  with pytest.raises(type(error), match=f'^{error}$'):
    TestOutputs().evaluate(metric=Gives('compute', error))


@pytest.mark.parametrize(
  ('found', 'said'),
  [
    (None, "'words' must give numbers by name; it gives None"),
    (1.0, "'words' must give numbers by name; it gives 1.0"),
    ({'words': 'good'}, "'words' must be a number; it is 'good'"),
    ({'words': np.ones(3)}, r"'words' must be a number; it is array\("),
    ({'words/a': None}, "'words/a' must be a number; it is None"),
    ({3: 1.0}, "'words' must give numbers of that name, or of words/<part>; one is 3"),
    ({'my words/a': 1.0}, "'words' must give numbers of that name.*; one is 'my words/a'"),
    ({'words/': 1.0}, "'words' must give numbers of that name.*; one is 'words/'"),
    ({'words/a\nb': 1.0}, "'words' must give numbers of that name.*; one is "),
  ],
)
def test_what_is_no_number_of_a_metric_is_named(found, said):
  with pytest.raises(UserError, match=f'{WHERE}split validation: .*{said}'):
    TestOutputs().evaluate(metric=Gives('compute', found))


def test_numbers_of_numpy_become_those_of_a_row():
  found = TestOutputs().evaluate(metric=Gives('compute', {'words': np.float32(0.5)}))
  assert found['validation/words'] == 0.5 and type(found['validation/words']) is float


@pytest.mark.parametrize(
  ('given', 'error', 'said'),
  [
    (lambda *_: None, UserError, 'metrics must return metrics by name; it returned None'),
    (lambda *_: {'loss': 3}, UserError, "'loss' must have update, merge, compute, .* it is 3"),
    (
      lambda *_: {'loss': Gives('', 0, outputs='words')},
      UserError,
      "'loss' must have .* a tuple of names as outputs",
    ),
    (lambda *_: 1 / 0, TaskError, 'ZeroDivisionError: '),
    (dict, TaskError, 'TypeError: '),
  ],
)
def test_metrics_of_a_task_that_are_none_are_told(given, error, said, monkeypatch):
  monkeypatch.setattr(TASK, 'metrics', SimpleNamespace(metrics=given))
  with pytest.raises(error, match=f'{WHERE}metrics: .*{said}'):
    evaluate({'loss': (6.0, 3.0)})


@pytest.mark.parametrize('error', [RuntimeError('shapes'), IntegrityError('cheat', 'data')])
def test_code_that_fails_in_an_evaluation_is_named_with_its_split(error, monkeypatch):
  def eval_sums(*arguments, **options):
    raise error

  is_of_task = type(error) is RuntimeError
  said = f'{WHERE}split test: RuntimeError: shapes' if is_of_task else '^cheat$'
  with pytest.raises(TaskError if is_of_task else IntegrityError, match=said):
    evaluate({}, splits=('test',), eval_sums=eval_sums)


def test_a_metric_without_sums_is_named_with_task_and_split():
  with pytest.raises(UserError, match=r'\(task vision\), split test: The metric \'loss\' takes'):
    evaluate({'accuracy': (1.0, 1.0)}, splits=('test',))
