"""Search spaces: the points that AlgoPerf draws, their order, and what a wrong file gets."""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithmic_efficiency.benchmark import search_space
from algorithmic_efficiency.errors import UserError

LOG = {'min': 1e-4, 'max': 1e-2, 'scaling': 'log'}


def _load(tmp_path, content):
  path = tmp_path / 'space.json'
  path.write_text(content if isinstance(content, str) else json.dumps(content))
  return search_space.load(path)


def _as_set(points):
  return {tuple(sorted(point.items())) for point in points}


# The points themselves.


def test_points_are_those_of_the_reference():
  one = search_space.halton(3, 1)[:, 0]
  np.testing.assert_allclose(one, [0.2861242773, 0.8300193328, 0.3607963257], atol=5e-11)
  two = search_space.halton(3, 2)
  np.testing.assert_allclose(two[:, 0], [0.2739744373, 0.9911667058, 0.2302307954], atol=5e-11)
  np.testing.assert_array_equal(two[:, 1], one)


def test_log_scale_gives_the_values_of_the_reference(tmp_path):
  space = _load(tmp_path, {'learning_rate': LOG})
  values = sorted(point['learning_rate'] for point in search_space.points(space, 3, seed=0))
  np.testing.assert_allclose(values, [3.7346384e-4, 5.2673558e-4, 4.5712889e-3], rtol=2e-8)


def test_first_hyperparameter_has_the_smallest_base(tmp_path):
  content = {name: {'min': 0.0, 'max': 1.0, 'scaling': 'linear'} for name in ('a', 'b')}
  points = search_space.points(_load(tmp_path, content), 3, seed=0)
  columns = search_space.halton(3, 2)
  assert _as_set(points) == {
    (('a', float(first)), ('b', float(second))) for first, second in columns
  }


def test_choices_are_taken_by_the_floor(tmp_path):
  space = _load(tmp_path, {'dropout_rate': {'feasible_points': [0.0, 0.1, 'auto', None]}})
  drawn = [point['dropout_rate'] for point in search_space.points(space, 3, seed=0)]
  # 0.286, 0.830 and 0.361 of four values are the second, the fourth and the second.
  assert sorted(drawn, key=str) == [0.1, 0.1, None]


@pytest.mark.parametrize('base', [2, 3, 5, 7])
def test_radical_inverse_is_that_of_scipy(base):
  qmc = pytest.importorskip('scipy.stats').qmc
  column = [2, 3, 5, 7].index(base)
  expected = qmc.Halton(d=4, scramble=False).random(200)[:, column]
  got = search_space.radical_inverse(np.arange(200), base, np.arange(base))
  np.testing.assert_allclose(got, expected, atol=1e-14)


@settings(max_examples=50, deadline=None)
@given(
  low=st.floats(1e-8, 1e3),
  factor=st.floats(1.0, 1e6),
  scaling=st.sampled_from(['linear', 'log']),
  num_trials=st.integers(1, 40),
  num_dimensions=st.integers(1, 6),
)
def test_points_stay_inside_the_bounds(low, factor, scaling, num_trials, num_dimensions):
  dimension = search_space.Range(low=low, high=low * factor, scaling=scaling)
  space = search_space.DrawnSpace({f'h{i}': dimension for i in range(num_dimensions)})
  points = search_space.points(space, num_trials, seed=1)
  assert len(points) == num_trials
  for point in points:
    assert all(low <= value <= low * factor for value in point.values())
    assert all(type(value) is float for value in point.values())  # they are written as JSON


def test_rounding_does_not_leave_the_bounds():
  """The plain formula gives 0.00022232747840173630, which is above the upper bound."""
  low, high = 0.00017411876418900165, 0.00022232747840173626
  dimension = search_space.Range(low=low, high=high, scaling='log')
  assert dimension.at(0.9999999999999999) == high
  assert dimension.at(0.0) == low


@given(num_values=st.integers(1, 9), fraction=st.floats(0, 1, exclude_max=True))
def test_a_choice_is_always_one_of_its_values(num_values, fraction):
  assert search_space.Choice(values=tuple(range(num_values))).at(fraction) in range(num_values)


def test_whole_numbers_are_equally_likely_and_include_both_bounds(tmp_path):
  space = _load(tmp_path, {'a': {'min': 1, 'max': 5, 'scaling': 'linear', 'type': 'int'}})
  found = [point['a'] for point in search_space.points(space, 1000, seed=0)]
  assert all(type(value) is int for value in found)
  assert {value: round(found.count(value) / 1000, 1) for value in range(1, 6)} == dict.fromkeys(
    range(1, 6), 0.2
  )
  # 0.286, 0.830 and 0.361 of five numbers are the second, the fifth and the second.
  drawn = [point['a'] for point in search_space.points(space, 3, seed=0)]
  assert sorted(drawn) == [2, 2, 5]


def test_whole_numbers_in_their_logarithm(tmp_path):
  space = _load(tmp_path, {'a': {'min': 1, 'max': 1023, 'scaling': 'log', 'type': 'int'}})
  found = [point['a'] for point in search_space.points(space, 1000, seed=0)]
  per_octave = [sum(2**n <= value < 2 ** (n + 1) for value in found) for n in range(10)]
  assert sum(per_octave) == 1000 and all(90 <= number <= 110 for number in per_octave)


@given(
  low=st.integers(1, 10**6),
  more=st.integers(0, 10**6),
  scaling=st.sampled_from(['linear', 'log']),
  fraction=st.floats(0, 1),
)
def test_whole_numbers_stay_inside_the_bounds(low, more, scaling, fraction):
  dimension = search_space.WholeRange(low=low, high=low + more, scaling=scaling)
  assert low <= dimension.at(fraction) <= low + more
  assert dimension.at(0.0) == low and dimension.at(math.nextafter(1.0, 0.0)) == low + more


def test_the_type_float_is_what_goes_without_saying(tmp_path):
  plain = _load(tmp_path, {'a': LOG})
  assert _load(tmp_path, {'a': {**LOG, 'type': 'float'}}) == plain


# Their order.


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), other=st.integers(0, 2**63 - 1))
def test_seed_changes_the_order_and_not_the_set(seed, other):
  space = search_space.DrawnSpace({'a': search_space.Range(low=0.0, high=1.0, scaling='linear')})
  points = search_space.points(space, 8, seed)
  assert points == search_space.points(space, 8, seed)
  assert _as_set(points) == _as_set(search_space.points(space, 8, other))


def test_order_depends_on_the_seed():
  space = search_space.DrawnSpace({'a': search_space.Range(low=0.0, high=1.0, scaling='linear')})
  assert len({str(search_space.points(space, 8, seed)) for seed in range(20)}) > 15


def test_fault_2_order_is_the_same_in_every_process():
  # The reference shuffles with numpy's global generator, unseeded: each process had its own order.
  code = (
    'import numpy; numpy.random.seed(); '
    'from algorithmic_efficiency.benchmark import search_space; '
    'a = search_space.Range(low=0.0, high=1.0, scaling="linear"); '
    'space = search_space.DrawnSpace({"a": a}); '
    'print(search_space.points(space, 8, 5))'
  )
  command = [sys.executable, '-c', code]
  first, second = (subprocess.check_output(command, text=True) for _ in range(2))
  assert first == second


def test_drawing_points_leaves_the_global_generator_alone():
  np.random.seed(3)
  before = np.random.get_state()[1].copy()
  search_space.halton(5, 3)
  np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_a_list_keeps_its_order(tmp_path):
  listed = [{'a': 1, 'b': 'x'}, {'b': 'y', 'a': 2}, {'a': 3, 'b': None}]
  space = _load(tmp_path, listed)
  assert search_space.points(space, 2, seed=9) == listed[:2]


def test_a_short_list_gives_what_it_has_and_says_so(tmp_path, caplog):
  space = _load(tmp_path, [{'a': 1}])
  with caplog.at_level(logging.WARNING):
    assert search_space.points(space, 5, seed=0) == [{'a': 1}]
  assert '1 points, fewer than the 5 trials' in caplog.text


# Points as submissions see them.


def test_points_are_named_tuples_built_by_name(tmp_path):
  space = _load(tmp_path, [{'a': 1, 'b': 2}, {'b': 4, 'a': 3}])
  first, second = (search_space.as_object(point) for point in search_space.points(space, 2, seed=0))
  assert (first.a, first.b, second.a, second.b) == (1, 2, 3, 4)
  assert not hasattr(first, 'grad_clip')
  assert second._asdict() == {'a': 3, 'b': 4}
  assert type(first).__name__ == 'Hyperparameters'


def test_self_tuning_has_no_point():
  assert search_space.as_object(None) is None


# Mistakes.


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ('{"a": 1,\n}', r'must be JSON.*line 2'),
    ('', r'must be JSON.*line 1'),
    ('{}', 'is empty'),
    ('[]', 'is empty'),
    ('3', 'holds a int'),
    ('{"a": {"feasible_points": [1]}, "a": {"feasible_points": [2]}}', "names 'a' twice"),
    ({'a': 0.1}, 'a in .* has 0.1'),
    ({'a': {}}, 'has nothing'),
    ({'a': {'min': 0, 'max': 1}}, 'min, max, scaling.* has min, max'),
    ({'a': {'min': 0, 'scaling': 'log'}}, 'has min, scaling'),
    ({'a': {'min': 0, 'max': 1, 'scaling': 'linear', 'feasible_points': [1]}}, 'must have min'),
    (
      {'a': {'min': 1, 'max': 2, 'scaling': 'logs'}},
      "a in .*no scaling 'logs'. Did you mean 'log'",
    ),
    ({'a': {'min': 1, 'max': 2, 'scaling': 7}}, "no scaling '7'"),
    ({'a': {'min': 2, 'max': 1, 'scaling': 'linear'}}, 'min must not exceed max'),
    ({'a': {'min': 0, 'max': 1, 'scaling': 'log'}}, 'positive bounds'),
    ({'a': {'min': '0', 'max': 1, 'scaling': 'linear'}}, 'finite numbers'),
    ({'a': {'min': True, 'max': 2, 'scaling': 'linear'}}, 'finite numbers'),
    ('{"a": {"min": NaN, "max": 1, "scaling": "linear"}}', 'finite numbers'),
    ({'a': {'feasible_points': []}}, 'at least one value'),
    ({'a': {'feasible_points': 0.1}}, 'must be a list'),
    ({'learning-rate': LOG}, "has 'learning-rate'"),
    ({'_a': LOG}, "has '_a'"),
    ({'lambda': LOG}, "has 'lambda'"),
    ([{'a': 1}, {'b': 1}], 'point 2 .* differs from the first in: a, b'),
    ([{'a': 1}, {'a': 1, 'b': 1}], 'differs from the first in: b'),
    ([{'a': 1}, {}], 'point 2 of .* differs from the first in: a'),
    ([{'a': LOG}], 'Ranges belong into a dictionary'),
    ([1], 'point 1 of .* is 1'),
    ('[' * 100_000, 'nested too deep'),
    ('{"a":' * 100_000, 'nested too deep'),
    ('[{"a": ' + '9' * 5000 + '}]', 'a number of thousands of digits'),
    ('[{"a": NaN}]', 'must be finite; a of point 1 of .* is nan'),
    ('[{"a": 1e400}]', 'must be finite; a of point 1 of .* is inf'),
    ([{'a': 10**400}], 'must be finite; a of point 1'),
    ({'a': {'feasible_points': [1, 10**400]}}, 'must be finite; a feasible point of a'),
    ('{"a": {"feasible_points": [Infinity]}}', 'must be finite; a feasible point of a'),
    ({'a': {'min': 1, 'max': 10**400, 'scaling': 'log'}}, 'finite numbers'),
    ({'a': {'min': -1e308, 'max': 1e308, 'scaling': 'linear'}}, 'lie too far apart'),
    ({'a': {'min': 1e-200, 'max': 1e200, 'scaling': 'log'}}, 'lie too far apart'),
    ([{'\ufb01t': 1, 'fit': 2}], "reads the name '\ufb01t' as 'fit'; write it so"),
    ({'a': {'min': 1, 'max': 5, 'scaling': 'linear', 'type': 'integer'}}, "Did you mean 'int'"),
    ({'a': {'min': 1, 'max': 5, 'scaling': 'linear', 'type': ['int']}}, 'no type'),
    ({'a': {'min': 1, 'max': 2.5, 'scaling': 'linear', 'type': 'int'}}, 'must be whole numbers'),
    ({'a': {'min': 1, 'max': 2**60, 'scaling': 'log', 'type': 'int'}}, 'must be whole numbers'),
    ({'a': {'min': 0, 'max': 5, 'scaling': 'log', 'type': 'int'}}, 'positive bounds'),
    ({'a': {'min': 1, 'max': 5, 'type': 'int'}}, 'perhaps type.* has min, max, type'),
  ],
)
def test_a_wrong_space_is_a_clear_mistake(tmp_path, content, message):
  with pytest.raises(UserError, match=message):
    _load(tmp_path, content)


@pytest.mark.parametrize('scaling', ['linear', 'log'])
def test_a_range_may_be_one_value(tmp_path, scaling):
  space = _load(tmp_path, {'lr': {'min': 0.5, 'max': 0.5, 'scaling': scaling}})
  assert search_space.points(space, 3, seed=0) == [{'lr': 0.5}] * 3


def test_a_logarithmic_range_may_begin_at_any_positive_number(tmp_path):
  space = _load(tmp_path, {'lr': {'min': 1e-300, 'max': 1.0, 'scaling': 'log'}})
  assert all(0 < point['lr'] <= 1.0 for point in search_space.points(space, 5, seed=0))


def test_a_missing_space_is_a_clear_mistake(tmp_path):
  with pytest.raises(UserError, match='cannot be read: No such file'):
    search_space.load(tmp_path / 'none.json')
  with pytest.raises(UserError, match='cannot be read: Is a directory'):
    search_space.load(tmp_path)
  (tmp_path / 'binary.json').write_bytes(b'\xff\xfe\x00')
  with pytest.raises(UserError, match='not text in UTF-8'):
    search_space.load(tmp_path / 'binary.json')
  os.mkfifo(tmp_path / 'pipe.json')
  with pytest.raises(UserError, match='is a pipe or a device'):
    search_space.load(tmp_path / 'pipe.json')  # which nobody writes into
  with pytest.raises(UserError, match='must be smaller than'):
    (tmp_path / 'large.json').write_bytes(b' ' * (2**24 + 1))
    search_space.load(tmp_path / 'large.json')


def test_a_byte_order_mark_is_no_part_of_the_space(tmp_path):
  assert _load(tmp_path, '\ufeff[{"a": 1}]').listed == ({'a': 1},)


def test_too_many_hyperparameters_are_a_clear_mistake():
  assert search_space.halton(1, 166).shape == (1, 166)
  with pytest.raises(UserError, match='at most 166'):
    search_space.halton(1, 167)
