"""Seconds of several hosts: refused, unless they are asked for, and then said."""

from __future__ import annotations

import json

import pytest

import scoring
from algorithmic_efficiency import cli, errors
from scoring.notes import counted
from scoring.outputs import as_json, footnotes, markdown
from tests.unit.scoring_runs import hit_at, write_trial

WORKLOAD = 'wmt'


def _record(suite, host, machine='m1', framework='jax', **devices):
  environment = {
    'host_hash': host,
    'machine_hash': machine,
    'cpu_model': f'cpu of {machine}',
    'num_usable_cpus': 8,
    'devices': {'framework': framework, 'device_kind': 'A100', 'num_devices': 4, **devices},
  }
  return {'suite': suite, 'ruleset': 'external', 'status': 'finished', 'environment': environment}


def _write(root, name, host, machine='m1', framework='jax', suite='algoperf_v06', **changes):
  record = {**_record(suite, host, machine, framework), **changes} if host else None
  workload = WORKLOAD if suite == 'algoperf_v06' else 'quick_vision'
  write_trial(root, name, workload, hit_at(workload, 10.0), framework=framework, record=record)


def _score(root, suite='algoperf_v06', **options):
  return scoring.score(scoring.load(root), suite, statistics=False, **options)


@pytest.mark.parametrize('second', [('h2', 'm1', 'jax'), ('h2', 'm2', 'pytorch'), ('', '', 'jax')])
def test_seconds_of_two_hosts_are_refused(tmp_path, second):
  _write(tmp_path, 'a', 'h1')
  _write(tmp_path, 'b', *second)
  with pytest.raises(errors.UserError, match='Seconds compare only where') as refused:
    _score(tmp_path)
  assert 'h1: 4 x A100, 8 of cpu of m1 (a)' in str(refused.value)
  assert '(b)' in str(refused.value) and '--mix_hosts' in str(refused.value)


def test_they_stand_side_by_side_when_asked_for_and_the_results_say_so(tmp_path):
  _write(tmp_path, 'a', 'h1')
  _write(tmp_path, 'b', 'h2')
  result = _score(tmp_path, mix_hosts=True)
  assert result.times[:, result.workloads.index(WORKLOAD)].tolist() == [10.0, 10.0]
  assert counted(result.notes)['mixed_hosts'] == 2
  said = 'seconds of 2 hosts stand side by side'
  assert any(said in sentence for sentence in footnotes(result))
  assert said in markdown(result) and said in json.dumps(as_json(result))


def test_frameworks_on_one_machine_compare(tmp_path):
  _write(tmp_path, 'a', 'h1', framework='jax')
  _write(tmp_path, 'b', 'h2', framework='pytorch')
  result = _score(tmp_path)
  assert not result.rules.changes
  for name, host, framework in (('c', 'h1', 'jax'), ('d', 'h2', 'pytorch')):
    _write(tmp_path / 'steps', name, host, framework=framework, suite='quick')
  assert 'several_hosts' not in counted(_score(tmp_path / 'steps', 'quick').notes)
  assert not {'mixed_hosts', 'several_hosts'} & set(counted(result.notes))


def test_logs_that_do_not_say_where_they_ran_count_as_one_host(tmp_path):
  _write(tmp_path, 'a', '')
  _write(tmp_path, 'b', '')
  assert _score(tmp_path).submissions == ('a', 'b')


def test_runs_of_ours_beside_published_ones_are_of_two_hosts(tmp_path):
  write_trial(tmp_path, 'a', WORKLOAD, hit_at(WORKLOAD, 9.0), record=_record('algoperf_v05', 'h1'))
  with pytest.raises(errors.UserError, match='logs that do not say where they ran'):
    _score(tmp_path, 'algoperf_v05', against='algoperf_v05')
  assert _score(tmp_path, 'algoperf_v05', against='algoperf_v05', mix_hosts=True).published


def test_a_trial_that_is_not_scored_or_left_out_is_of_no_host(tmp_path):
  _write(tmp_path, 'a', 'h1')
  _write(tmp_path, 'b', 'h2', status='invalid', reason='it cheated')
  assert _score(tmp_path).submissions == ('a', 'b')
  _write(tmp_path, 'c', 'h3')
  assert _score(tmp_path, exclude=('c',)).submissions == ('a', 'b')


def test_steps_of_several_hosts_are_weighed_and_said(tmp_path):
  for name, host in (('a', 'h1'), ('b', 'h2')):
    _write(tmp_path, name, host, suite='quick')
  result = _score(tmp_path, 'quick')
  assert counted(result.notes)['several_hosts'] == 1
  assert not result.rules.changes


@pytest.mark.parametrize('verb', ['score', 'report', 'compare'])
def test_every_verb_refuses_and_takes_the_flag(tmp_path, verb, capsys):
  runs, out = tmp_path / 'runs', tmp_path / 'out'
  _write(runs, 'a', 'h1')
  _write(runs, 'b', 'h2')
  command = {
    'score': ['score', str(runs), '--no_report', '--output_dir', str(out)],
    'report': ['report', str(runs), '--output_dir', str(out)],
    'compare': ['compare', 'a', 'b', str(runs)],
  }[verb]
  assert cli.main(command) == cli.USER_ERROR
  assert '--mix_hosts' in capsys.readouterr().err
  assert cli.main([*command, '--mix_hosts']) == 0
