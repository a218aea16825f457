"""Entries as they were published run as they are: one after the other in one process, on every
workload, on one device and on several; and those that cannot run here say why."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from entries import BY_NAME, ROWS, STAND_INS, StandIn
from entries_script import SUITES
from trials import rank_outputs, record, rows, trial_folder
from warm import algoeff

from algorithmic_efficiency.backends.ports import free_port

SCRIPT = Path(__file__).with_name('entries_script.py')
README = Path(__file__).parents[1] / 'README.md'
TIMEOUT_SEC = 900  # for ten entries and their resumption on a busy machine
pytestmark = pytest.mark.timeout(TIMEOUT_SEC + 60)
NATIVE = 'nadamw'  # runs before and after several others
# One device is run with most of the entries, two with those that show a difference.
ON_TWO_DEVICES = {
  'jax': ('pmap_of_2024', 'pmap_by_names', 'pmap_until_done', 'jit_on_a_mesh', 'jit_outer_steps'),
  'pytorch': ('torch_of_2024', 'torch_queue_of_weights', 'torch_schedule_free', 'torch_by_names'),
}
ALL_ARE_SLOW_ON = 'quick_vision'  # on the other workloads most take long
# One of each layout, and one that reduces over processes; the others on two devices take long.
SLOW_ON_TWO_DEVICES = {
  'jax': ('pmap_of_2024', 'jit_on_a_mesh'),
  'pytorch': ('torch_of_2024', 'torch_by_names'),
}
# Where there is no time for more.
ONE_IN_JAX = 'pmap_of_2024'
ONE_IN_PYTORCH = 'torch_queue_of_weights'

Results = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture(scope='module')
def mnist(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A data folder with MNIST prepared in it."""
  from algorithmic_efficiency.cli import main

  folder = tmp_path_factory.mktemp('data')
  command = ['data', 'prepare', 'mnist', '--source', str(test_data / 'mnist')]
  assert main([*command, '--data_dir', str(folder)]) == 0
  return folder


@pytest.fixture(scope='module')
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
  """Runs entries in one process, or one a rank, once for all the tests that look at them."""

  @functools.cache
  def run(
    framework: str, workload: str, names: tuple[str, ...], num_devices: int = 1, data: str = ''
  ) -> dict[str, dict[str, Any]]:
    pytest.importorskip({'jax': 'jax', 'pytorch': 'torch'}[framework])
    root = tmp_path_factory.mktemp('entries')
    for name in names:
      BY_NAME[name].write(root / 'entries')
    world_size = num_devices if framework == 'pytorch' else 1
    around = [NATIVE] if len(names) > 1 else []
    common = [framework, workload, str(root), *around, *names, *around, f'--data_dir={data}']
    common += [f'--num_devices={num_devices}', f'--world_size={world_size}']
    common.append(f'--port={free_port()}')
    ranks = [[*common, f'--rank={rank}'] for rank in range(world_size)]
    outputs = rank_outputs(SCRIPT, ranks, TIMEOUT_SEC)
    found = json.loads(outputs[0].splitlines()[-1])
    if around:
      first, *found, last = found
      assert first['evals'] and metrics(first) == metrics(last), 'an entry leaves something behind'
    return {result['name']: result for result in found}

  return run


def metrics(result: dict[str, Any]) -> list[dict[str, float]]:
  return [{name: row[name] for name in row if '/' in name} for row in result['evals']]


def runnable(framework: str) -> tuple[str, ...]:
  return tuple(e.name for e in STAND_INS if e.framework == framework and not e.refusal)


def check(result: dict[str, Any], entry: StandIn) -> None:
  """What it is to run: updates, evaluations, finite parameters, a lower loss, and the same after a
  break."""
  assert result['status'] == 'finished', result
  assert result['stop_reason'] == entry.stop_reason
  first, *_, last = result['evals']
  assert last['global_step'] >= 20
  assert last['train/loss'] < 0.95 * first['train/loss']
  assert result['is_finite']
  assert result['differences'] == []
  assert not any('cannot be resumed' in note for note in result['notes'])


def check_failure(result: dict[str, Any], entry: StandIn) -> None:
  """One whose own arithmetic fails says where, and what it has reached stays."""
  assert result['status'] == 'failed'
  assert 'TypeError' in result['reason'] and 'submission.py, line' in result['reason']
  assert result['evals']


@pytest.mark.slow
def test_one_runs_on_packed_pairs(results: Results):
  found = results('pytorch', 'quick_nmt', (ONE_IN_PYTORCH,))
  check(found[ONE_IN_PYTORCH], BY_NAME[ONE_IN_PYTORCH])


@pytest.mark.slow
def test_one_runs_on_sequences(results: Results):
  found = results('jax', 'quick_lm', (ONE_IN_JAX,))
  check(found[ONE_IN_JAX], BY_NAME[ONE_IN_JAX])


@pytest.mark.slow
def test_one_runs_on_a_mixture_of_experts(results: Results):
  """Its logits have auxiliary losses beside them, of which the entry knows nothing."""
  found = results('pytorch', 'quick_moe', (ONE_IN_PYTORCH,))
  check(found[ONE_IN_PYTORCH], BY_NAME[ONE_IN_PYTORCH])


def every(names: Callable[[str], tuple[str, ...]]) -> pytest.MarkDecorator:
  return pytest.mark.parametrize(
    ('workload', 'framework', 'name'),
    [
      pytest.param(workload, framework, name, marks=marks(workload))
      for workload in SUITES
      for framework in ON_TWO_DEVICES
      for name in names(framework)
    ],
  )


def marks(workload: str) -> list[pytest.MarkDecorator]:
  cost = pytest.mark.slow if workload == ALL_ARE_SLOW_ON else pytest.mark.long
  return [cost, *[pytest.mark.data] * (workload == 'mnist_standardized')]


@every(runnable)
def test_every_one_runs(
  workload: str, framework: str, name: str, results: Results, request: pytest.FixtureRequest
):
  found = results(framework, workload, runnable(framework), data=data(workload, request))[name]
  (check_failure if BY_NAME[name].stop_reason == 'failed' else check)(found, BY_NAME[name])


@pytest.mark.slow
@pytest.mark.parametrize(
  ('framework', 'name'),
  [(framework, name) for framework, names in SLOW_ON_TWO_DEVICES.items() for name in names],
)
def test_some_on_two_devices(framework: str, name: str, results: Results):
  found = results(framework, ALL_ARE_SLOW_ON, SLOW_ON_TWO_DEVICES[framework], 2)
  check(found[name], BY_NAME[name])


@pytest.mark.long
@every(ON_TWO_DEVICES.__getitem__)
def test_on_two_devices(
  workload: str, framework: str, name: str, results: Results, request: pytest.FixtureRequest
):
  names = ON_TWO_DEVICES[framework]
  check(results(framework, workload, names, 2, data(workload, request))[name], BY_NAME[name])


@pytest.mark.long
@pytest.mark.data
def test_eight_devices_give_what_one_gives(results: Results, mnist: Path):
  """Without batch norm the layouts and numbers of devices differ by rounding alone."""
  names = ('pmap_of_2024', 'jit_on_a_mesh')
  one, eight = (
    results('jax', 'mnist_standardized', names, number, str(mnist)) for number in (1, 8)
  )
  for name in names:
    check(eight[name], BY_NAME[name])
    for row, other in zip(metrics(one[name]), metrics(eight[name]), strict=True):
      assert other == pytest.approx(row, rel=2e-3)


def data(workload: str, request: pytest.FixtureRequest) -> str:
  """The data folder, where the workload needs one."""
  return str(request.getfixturevalue('mnist')) if workload == 'mnist_standardized' else ''


@pytest.mark.slow
def test_what_was_restored_is_noted(results: Results):
  found = results('jax', 'quick_vision', runnable('jax'), data='')
  assert any('jax.tree_map' in note for note in found[ONE_IN_JAX]['notes'])


@pytest.mark.slow
def test_every_batch_that_is_drawn_is_charged(results: Results):
  found = results('pytorch', 'quick_vision', runnable('pytorch'), data='')[ONE_IN_PYTORCH]
  assert found['charged_steps'] == 3 * found['evals'][-1]['global_step']


# Those that cannot run here, through the command line.


def run(entry: StandIn, folder: Path, *flags: object) -> subprocess.CompletedProcess[str]:
  ruleset = 'external' if entry.external else 'self'
  return algoeff(
    *('run', '--workload', 'quick_vision', '--framework', entry.framework, '--platform', 'cpu'),
    *('--submission', entry.write(folder), '--ruleset', ruleset, '--quiet', '--num_threads', 1),
    *('--experiment_dir', folder / 'runs', *flags),
    cwd=folder,
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  'entry', [entry for entry in STAND_INS if entry.refusal], ids=lambda entry: entry.name
)
def test_one_that_cannot_run_here_says_why(entry: StandIn, tmp_path: Path):
  result = run(entry, tmp_path, '--smoke')
  assert result.returncode == 2, result.stderr
  [line] = result.stderr.splitlines()
  for part in entry.refusal:
    assert part in line
  assert not list((tmp_path / 'runs').rglob('trial_*'))


@pytest.mark.slow
def test_one_that_never_returns_is_ended_and_its_rows_stay(tmp_path: Path):
  never = StandIn(
    name='never',
    framework='pytorch',
    rows=(),
    base=BY_NAME['torch_steered'].base,
    swaps={'  model.train()\n': '  model.train()\n  while global_step == 20: pass\n'},
  )
  result = run(never, tmp_path, '--allow_provisional', '--heartbeat_timeout_sec', 15)
  assert result.returncode == 1, result.stderr
  folder = trial_folder(tmp_path / 'runs')
  assert record(folder).stop_reason == 'heartbeat_timeout'
  assert 'gave a sign of life for 15 s' in record(folder).reason
  assert [row['global_step'] for row in rows(folder).evals] == [1, *range(2, 21, 2)]


# The table of the README.


def test_every_need_has_a_stand_in():
  assert {row for entry in STAND_INS for row in entry.rows} == set(ROWS)


def test_the_table_of_needs_is_up_to_date():
  assert table() in README.read_text()


def table() -> str:
  """What entries need, and the stand-ins that need it."""
  lines = ['| row | need | stand-ins |', '|---|---|---|']
  for row, need in ROWS.items():
    names = [f'`{entry.name}`' for entry in STAND_INS if row in entry.rows]
    lines.append(f'| {row} | {need} | {", ".join(names)} |')
  return '\n'.join(lines)
