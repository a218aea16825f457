# ruff: noqa: E501 - the code of an attack stands as its author would write it
"""Submissions that try to gain what they have not earned, and what becomes of each.

Every attack is a plain SGD submission with one function replaced. `outcome` is 'impossible' (nothing
is gained: the result is that of the honest submission), 'charged' (what it gains, it pays for) or
'invalid' (the trial ends as invalid, with `reason` in its record).
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Literal

HONEST = """
import os, subprocess, sys, threading, time
import torch
from algorithmic_efficiency import spec


def get_batch_size(workload_name):
  return 8


def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
  return {'optimizer': torch.optim.SGD(model_params.parameters(), lr=0.05)}


def update_params(workload, current_param_container, current_params_types, model_state,
                  hyperparameters, batch, loss_type, optimizer_state, eval_results, global_step, rng):
  optimizer_state['optimizer'].zero_grad()
  logits, model_state = workload.model_fn(
    params=current_param_container, augmented_and_preprocessed_input_batch=batch,
    model_state=model_state, mode=spec.ForwardPassMode.TRAIN, rng=rng, update_batch_norm=True)
  loss = workload.loss_fn(label_batch=batch['targets'], logits_batch=logits,
                          mask_batch=batch.get('weights'))
  (loss['summed'] / loss['n_valid_examples']).backward()
  optimizer_state['optimizer'].step()
  return optimizer_state, current_param_container, model_state


def data_selection(workload, input_queue, optimizer_state, current_param_container, model_state,
                   hyperparameters, global_step, rng):
  return next(input_queue)
"""


@dataclass(frozen=True, kw_only=True)
class Attack:
  """One attack.

  Attributes:
    code: Python that comes after the honest submission and replaces parts of it.
    smoke: False runs the workload at full size, whose evaluations take long enough to be used.
    charged_to: for 'charged', the clock bucket that must hold the second that the attack takes.
  """

  name: str
  what: str
  outcome: Literal['impossible', 'charged', 'invalid']
  how: str
  code: str
  reason: str = ''
  smoke: bool = True
  charged_to: str = ''

  @property
  def module(self) -> str:
    return HONEST + '\n\nhonest_update = update_params\n' + textwrap.dedent(self.code)


_BUSY = """
    def burn(seconds):
      end = time.monotonic() + seconds
      while time.monotonic() < end:
        sum(range(1000))
"""

ATTACKS = (
  Attack(
    name='patch_time',
    what='replaces `time.time`, `time.perf_counter` and `time.monotonic` by clocks that stand still',
    outcome='charged',
    how='the source of time is bound when the core is imported',
    charged_to='update',
    code="""
    real_sleep = time.sleep
    time.time = time.perf_counter = time.monotonic = lambda: 0.0

    def update_params(global_step, **arguments):
      if global_step == 2:
        real_sleep(1.0)
      return honest_update(global_step=global_step, **arguments)
    """,
  ),
  Attack(
    name='patch_harness_clock',
    what='replaces the lap method of the stopwatch',
    outcome='invalid',
    how="the parent's clock disagrees with the clock of the trial",
    reason='The clock of the trial is off',
    code="""
    from algorithmic_efficiency import clock

    def update_params(global_step, **arguments):
      if global_step == 2:
        honest_lap = clock.Stopwatch.lap
        clock.Stopwatch.lap = lambda self, bucket: self.last
        time.sleep(2.0)
      return honest_update(global_step=global_step, **arguments)
    """,
  ),
  Attack(
    name='thread_during_evaluation',
    what='starts a thread that computes during the untimed evaluations',
    outcome='invalid',
    how='the CPU time of threads that are not ours is summed over all evaluations',
    reason='A thread of the submission',
    smoke=False,
    code=_BUSY
    + """
    def work():
      while True:
        burn(0.01)

    def update_params(global_step, **arguments):
      if global_step == 0:
        threading.Thread(target=work, daemon=True, name='worker').start()
      return honest_update(global_step=global_step, **arguments)
    """,
  ),
  Attack(
    name='process_during_evaluation',
    what='starts a process that computes during evaluations',
    outcome='invalid',
    how='the CPU time of child processes is summed over all evaluations',
    reason='A process of the submission',
    smoke=False,
    code="""
    def update_params(global_step, **arguments):
      if global_step == 0:
        subprocess.Popen([sys.executable, '-c', 'while True: sum(range(1000))'])
        time.sleep(0.3)
      return honest_update(global_step=global_step, **arguments)
    """,
  ),
  Attack(
    name='orphan_during_evaluation',
    what='starts such a process as an orphan, so that it seems to belong to nobody',
    outcome='invalid',
    how='orphaned processes become children of the trial, are measured, and are ended with it',
    reason='A process of the submission',
    smoke=False,
    code="""
    def update_params(global_step, **arguments):
      if global_step == 0:
        subprocess.run(['setsid', '-f', sys.executable, '-c', 'while True: sum(range(1000))'])
        time.sleep(0.3)
      return honest_update(global_step=global_step, **arguments)
    """,
  ),
  Attack(
    name='train_in_init',
    what='changes the parameters inside `init_optimizer_state`, whose time is free',
    outcome='invalid',
    how='the parameters are compared before and after',
    reason='init_optimizer_state changed the parameters',
    code="""
    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
      with torch.no_grad():
        for parameter in model_params.parameters():
          parameter.mul_(0.5)
      return {'optimizer': torch.optim.SGD(model_params.parameters(), lr=0.05)}
    """,
  ),
  Attack(
    name='read_validation_through_workload',
    what='asks the workload for the validation data inside `init_optimizer_state`',
    outcome='invalid',
    how='methods reserved for the harness raise an error and mark the trial, even if it is caught',
    reason='_build_input_queue',
    code="""
    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
      try:
        workload._build_input_queue(rng, 'validation', '', 8)
      except Exception:
        pass
      return {'optimizer': torch.optim.SGD(model_params.parameters(), lr=0.05)}
    """,
  ),
  Attack(
    name='open_the_data',
    what="opens the workload's data file, validation and test examples included",
    outcome='invalid',
    how='files that the harness opened as data can be opened by no one else',
    reason='The submission opened a data file of the workload',
    smoke=False,
    code="""
    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
      import importlib.util
      package = os.path.dirname(importlib.util.find_spec('sklearn').origin)
      try:
        open(os.path.join(package, 'datasets', 'data', 'digits.csv.gz'), 'rb').read()
      except Exception:
        pass
      return {'optimizer': torch.optim.SGD(model_params.parameters(), lr=0.05)}
    """,
  ),
  Attack(
    name='evaluate_itself',
    what='calls `workload.eval_model` to steer by the test data between evaluations',
    outcome='invalid',
    how='methods reserved for the harness raise an error and mark the trial',
    reason='eval_model',
    code="""
    def update_params(workload, global_step, **arguments):
      if global_step == 3:
        try:
          workload.eval_model(8, arguments['current_param_container'], None, None, '', '', 3)
        except Exception:
          pass
      return honest_update(workload=workload, global_step=global_step, **arguments)
    """,
  ),
  Attack(
    name='complete_early',
    what='raises `TrainingCompleteError` at once, after a second of work, for a free evaluation',
    outcome='charged',
    how='the call is timed like any other, and its update is discarded',
    charged_to='update',
    code="""
    def update_params(global_step, **arguments):
      if global_step == 1:
        time.sleep(1.0)
        raise spec.TrainingCompleteError
      return honest_update(global_step=global_step, **arguments)
    """,
  ),
  Attack(
    name='work_in_data_selection',
    what='trains inside `data_selection`',
    outcome='charged',
    how='data selection is timed',
    charged_to='data',
    code="""
    def data_selection(workload, input_queue, *rest):
      if rest[4] == 2:
        time.sleep(1.0)
      return next(input_queue)
    """,
  ),
  Attack(
    name='work_in_prepare_for_eval',
    what='trains inside `prepare_for_eval`',
    outcome='charged',
    how='preparation is timed',
    charged_to='prepare_for_eval',
    code="""
    def prepare_for_eval(workload, current_param_container, current_params_types, model_state,
                         hyperparameters, loss_type, optimizer_state, eval_results, global_step, rng):
      if global_step == 1:
        time.sleep(1.0)
      return optimizer_state, current_param_container, model_state
    """,
  ),
  Attack(
    name='edit_past_evaluations',
    what='writes better values into `eval_results`',
    outcome='impossible',
    how='a submission sees a copy',
    code="""
    def update_params(eval_results, **arguments):
      for index, (step, values) in enumerate(eval_results):
        eval_results[index] = (step, dict(values, **{'validation/accuracy': 1.0, 'test/accuracy': 1.0}))
      return honest_update(eval_results=eval_results, **arguments)
    """,
  ),
  Attack(
    name='hook_in_evaluation',
    what='registers a hook on the module that changes its outputs in evaluations',
    outcome='impossible',
    how='evaluations use a module of the harness, into which the values are copied',
    code="""
    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
      def hook(module, arguments, output):
        return output if module.training else 0.0 * output
      model_params.register_forward_hook(hook)
      return {'optimizer': torch.optim.SGD(model_params.parameters(), lr=0.05)}
    """,
  ),
  Attack(
    name='claim_the_target',
    what='replaces the methods by which the workload says that a target is reached',
    outcome='impossible',
    how='the trial loop asks the definition, not the object that the submission holds',
    code="""
    def update_params(workload, **arguments):
      workload.has_reached_validation_target = workload.has_reached_test_target = lambda result: True
      type(workload).validation_target_value = type(workload).test_target_value = 0.0
      return honest_update(workload=workload, **arguments)
    """,
  ),
  Attack(
    name='edit_rows_on_disk',
    what='rewrites the rows in its trial folder',
    outcome='invalid',
    how='opening a file of the trial folder for writing is refused',
    reason='The submission changed a file of the trial folder',
    code="""
    def update_params(global_step, **arguments):
      if global_step == 12:
        import glob
        for path in glob.glob(os.environ['ATTACKED'] + '/**/measurements.jsonl', recursive=True):
          try:
            open(path, 'a').write('{}')
          except Exception:
            pass
      return honest_update(global_step=global_step, **arguments)
    """,
  ),
  Attack(
    name='edit_rows_from_a_process',
    what='has another process rewrite the rows in its trial folder',
    outcome='invalid',
    how='the parent compares the file with the rows it was sent',
    reason='The rows on disk are not those that the trial reported',
    code="""
    def update_params(global_step, **arguments):
      if global_step == 12:
        import glob
        for path in glob.glob(os.environ['ATTACKED'] + '/**/measurements.jsonl', recursive=True):
          subprocess.run(['sed', '-i', 's/accuracy": 0/accuracy": 1/', path], check=True)
      return honest_update(global_step=global_step, **arguments)
    """,
  ),
  Attack(
    name='edit_table_from_a_process',
    what='has another process rewrite the table of evaluations that is scored',
    outcome='invalid',
    how='the parent compares the tables with the rows, too',
    reason='eval_measurements.csv does not hold the rows of the log',
    code="""
    def update_params(global_step, **arguments):
      if global_step == 12:
        import glob
        for path in glob.glob(os.environ['ATTACKED'] + '/**/eval_measurements.csv', recursive=True):
          subprocess.run(['sed', '-i', r'2s/,0\\.[0-9]*,/,0.999,/', path], check=True)
      return honest_update(global_step=global_step, **arguments)
    """,
  ),
  Attack(
    name='draw_several_batches',
    what='draws five batches a step and trains on all of them',
    outcome='charged',
    how='on the step axis a step costs as many steps as it draws batches',
    charged_to='steps',
    code="""
    def data_selection(workload, input_queue, *rest):
      batches = [next(input_queue) for _ in range(5)]
      return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    """,
  ),
  Attack(
    name='larger_batch',
    what='asks for a larger batch, where steps are raced',
    outcome='impossible',
    how='on the step axis the definition sets the batch size',
    code="""
    def get_batch_size(workload_name):
      return 64
    """,
  ),
)
