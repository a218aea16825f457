# ruff: noqa: E501 - the code of an entry stands as its author would write it
"""Entries that break a rule, or would break later: what `algoeff check` must find by running them.

Each is an honest entry (in PyTorch that of `attacks.py`) with parts replaced, written so that
reading it shows nothing. The line that must be named ends with `# here`.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from attacks import HONEST
from entry_bases import JIT

MARK = '# here'
BASES = {'jax': JIT, 'pytorch': HONEST}


@dataclass(frozen=True, kw_only=True)
class Broken:
  """One entry.

  Attributes:
    kind: what must be found, by its name in `check_rules.KINDS`.
    code: Python that comes after the honest entry and replaces parts of it.
    limit: what initialising may take, where that is shortened so that nobody waits for minutes, as
      `limits_worker.py` reads it.
    shows: what reading it shows beside that, by names in `check_rules.KINDS`.
  """

  name: str
  kind: str
  code: str
  framework: Literal['jax', 'pytorch'] = 'pytorch'
  limit: str = ''
  shows: frozenset[str] = frozenset()

  @property
  def module(self) -> str:
    return (
      BASES[self.framework] + '\n\nhonest_update = update_params\n' + textwrap.dedent(self.code)
    )

  @property
  def line(self) -> int:
    lines = self.module.splitlines()
    [number] = [number for number, line in enumerate(lines, 1) if line.endswith(MARK)]
    return number

  def write(self, folder: Path) -> Path:
    file = folder / f'submission_{self.framework}.py'
    file.write_text(self.module)
    return file


BROKEN = (
  Broken(
    name='environment_in_a_step',
    kind='environment',
    code="""
    def update_params(global_step, **arguments):
      if global_step == 2:
        getattr(os, 'put' + 'env')('ALGOEFF_BROKEN', '1')  # here
      return honest_update(global_step=global_step, **arguments)
    """,
  ),
  Broken(
    name='number_of_threads',
    kind='settings',
    code="""
    def update_params(global_step, **arguments):  # here
      getattr(torch, 'set_num_' + 'threads')(2)
      return honest_update(global_step=global_step, **arguments)
    """,
  ),
  Broken(
    name='thread_that_stays',
    kind='left_running',
    shows=frozenset({'threads'}),
    code="""
    def wait():  # here
      time.sleep(1000)

    def update_params(global_step, **arguments):
      if global_step == 2:
        threading.Thread(target=wait, daemon=True, name='waiter').start()
      return honest_update(global_step=global_step, **arguments)
    """,
  ),
  Broken(
    name='process_that_stays',
    kind='left_running',
    shows=frozenset({'threads'}),
    code="""
    def update_params(global_step, **arguments):
      if global_step == 2:
        subprocess.Popen(['sleep', '1000'])  # here
      return honest_update(global_step=global_step, **arguments)
    """,
  ),
  Broken(
    name='evaluates_by_itself',
    kind='data',
    code="""
    def update_params(workload, global_step, **arguments):
      if global_step == 2:
        evaluate = getattr(workload, 'eval_' + 'model')
        try:
          evaluate()  # here
        except Exception:
          pass
      return honest_update(workload=workload, global_step=global_step, **arguments)
    """,
  ),
  Broken(
    name='network',
    kind='network',
    code="""
    import importlib

    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
      try:
        importlib.import_module('soc' + 'ket').create_connection(('127.0.0.1', 9), timeout=1)  # here
      except OSError:
        pass
      return {'optimizer': torch.optim.SGD(model_params.parameters(), lr=0.05)}
    """,
  ),
  Broken(
    name='writes_into_the_log',
    kind='harness',
    code="""
    def update_params(global_step, **arguments):
      if global_step == 2:
        for name in os.listdir('/proc/self/fd'):
          if os.path.realpath(f'/proc/self/fd/{name}').endswith('.jsonl'):
            os.close(os.open(f'/proc/self/fd/{name}', os.O_WRONLY))  # here
      return honest_update(global_step=global_step, **arguments)
    """,
  ),
  Broken(
    name='another_process_writes_into_the_log',
    kind='harness',
    shows=frozenset({'threads'}),
    code="""
    def update_params(global_step, **arguments):  # here
      if global_step == 12:
        for name in os.listdir('/proc/self/fd'):
          log = os.path.realpath(f'/proc/self/fd/{name}')
          if log.endswith('.jsonl'):
            subprocess.run(['sed', '-i', 's/accuracy/precision/', log], check=True)
      return honest_update(global_step=global_step, **arguments)
    """,
  ),
  Broken(
    name='searches_in_init',
    kind='init_too_long',
    limit='free_init_sec=1',
    code="""
    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):  # here
      time.sleep(2)
      return {'optimizer': torch.optim.SGD(model_params.parameters(), lr=0.05)}
    """,
  ),
  Broken(
    name='lingers_in_init',
    kind='init_work',
    limit='min_init_sec=1',
    code="""
    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):  # here
      time.sleep(8)
      return {'optimizer': torch.optim.SGD(model_params.parameters(), lr=0.05)}

    def update_params(global_step, **arguments):
      if global_step == 5:  # so that steps take less
        raise spec.TrainingCompleteError
      return honest_update(global_step=global_step, **arguments)
    """,
  ),
  Broken(
    name='trains_in_init',
    kind='init_changes_model',
    code="""
    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):  # here
      with torch.no_grad():
        for parameter in model_params.parameters():
          parameter.mul_(0.5)
      return {'optimizer': torch.optim.SGD(model_params.parameters(), lr=0.05)}
    """,
  ),
  Broken(
    name='two_results',
    kind='interface',
    code="""
    def update_params(**arguments):  # here
      return honest_update(**arguments)[:2]
    """,
  ),
  Broken(
    name='needs_a_package',
    kind='cannot_run_here',
    code="""
    import learned_things_of_2023  # here
    """,
  ),
  Broken(
    name='refuses_by_a_class_of_its_own',
    kind='cannot_run_here',
    code="""
    class Unfit(Exception):
      pass

    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
      raise Unfit('The groups need eight trainers.')  # here
    """,
  ),
  Broken(
    name='fails_at_a_step',
    kind='exception',
    code="""
    def update_params(global_step, **arguments):
      if global_step == 30:
        raise KeyError('a_name_that_is_not_there')  # here
      return honest_update(global_step=global_step, **arguments)
    """,
  ),
  Broken(
    name='never_returns',
    kind='ended',
    code="""
    def update_params(global_step, **arguments):
      if global_step == 3:
        time.sleep(1000)  # here
      return honest_update(global_step=global_step, **arguments)
    """,
  ),
  Broken(
    name='never_begins',
    kind='ended',
    code="""
    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
      threading.Event().wait()  # here
    """,
  ),
  Broken(
    name='crashes',
    kind='ended',
    code="""
    def update_params(**arguments):
      os.kill(os.getpid(), 11)  # here
    """,
  ),
  Broken(
    name='divides_by_zero',
    kind='not_finite',
    code="""
    def update_params(current_param_container, **arguments):  # here
      result = honest_update(current_param_container=current_param_container, **arguments)
      with torch.no_grad():
        next(current_param_container.parameters()).div_(0.0)
      return result
    """,
  ),
  Broken(
    name='forgets_the_parameters',
    kind='no_change',
    code="""
    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
      copies = [parameter.detach().clone() for parameter in model_params.parameters()]
      return {'optimizer': torch.optim.SGD(copies, lr=0.05)}

    def update_params(**arguments):  # here
      return honest_update(**arguments)
    """,
  ),
  Broken(
    name='climbs',
    kind='loss_rises',
    code="""
    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
      return {'optimizer': torch.optim.SGD(model_params.parameters(), lr=0.05, maximize=True)}

    def update_params(**arguments):  # here
      return honest_update(**arguments)
    """,
  ),
  Broken(
    name='keeps_every_batch',
    kind='memory_grows',
    code="""
    kept = []

    def update_params(batch, **arguments):  # here
      kept.append(batch['inputs'] * 1.0)
      return honest_update(batch=batch, **arguments)
    """,
  ),
  Broken(
    name='grows_outside_arrays',
    kind='memory_grows',
    code="""
    kept = []

    def update_params(batch, **arguments):  # here
      kept.append(bytes(range(256)) * 4096)
      return honest_update(batch=batch, **arguments)
    """,
  ),
  Broken(
    name='state_with_a_lock',
    kind='not_saved',
    code="""
    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):  # here
      return {'optimizer': torch.optim.SGD(model_params.parameters(), lr=0.05), 'lock': threading.Lock()}
    """,
  ),
  Broken(
    name='state_that_changes_its_shape',
    kind='not_restored',
    code="""
    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):  # here
      optimizer = torch.optim.SGD(model_params.parameters(), lr=0.05)
      return {'optimizer': optimizer, 'best': (torch.zeros(3),)}

    def update_params(optimizer_state, **arguments):
      optimizer_state['best'] = (torch.zeros(3), torch.zeros(3))
      return honest_update(optimizer_state=optimizer_state, **arguments)
    """,
  ),
  Broken(
    name='counts_in_a_global',
    kind='resume_differs',
    code="""
    counted = [0]

    def update_params(optimizer_state, **arguments):  # here
      counted[0] += 1
      optimizer_state['optimizer'].param_groups[0]['lr'] = 0.05 / counted[0]
      return honest_update(optimizer_state=optimizer_state, **arguments)
    """,
  ),
  Broken(
    name='parameters_of_before',
    kind='no_change',
    framework='jax',
    code="""
    def update_params(train_state, current_param_container, **arguments):  # here
      before = jax.tree.map(jnp.copy, current_param_container)  # which the step donates
      state, _, model_state = honest_update(train_state=train_state, current_param_container=current_param_container, **arguments)
      return state, before, model_state
    """,
  ),
  Broken(
    name='infinite_gradients',
    kind='not_finite',
    framework='jax',
    code="""
    def transformed(grads):
      return jax.tree.map(lambda grad: grad / 0, grads)

    def update_params(train_state, **arguments):  # here
      return honest_update(train_state=train_state, **arguments)
    """,
  ),
  Broken(
    name='keeps_every_sum',
    kind='memory_grows',
    framework='jax',
    code="""
    kept = []

    def update_params(train_state, batch, **arguments):  # here
      kept.append(batch['inputs'].sum())
      return honest_update(train_state=train_state, batch=batch, **arguments)
    """,
  ),
  Broken(
    name='decays_by_a_global',
    kind='resume_differs',
    framework='jax',
    code="""
    counted = [0]

    def update_params(train_state, **arguments):  # here
      counted[0] += 1
      state, params, model_state = honest_update(train_state=train_state, **arguments)
      return state, jax.tree.map(lambda p: p * (1 - 1e-4 * counted[0]), params), model_state
    """,
  ),
)

# What the second device alone shows.
BROKEN_ON_TWO_DEVICES = (
  Broken(
    name='environment_of_the_second_process',
    kind='environment',
    code="""
    def update_params(global_step, **arguments):
      if global_step == 2 and torch.distributed.is_initialized() and torch.distributed.get_rank():
        getattr(os, 'put' + 'env')('ALGOEFF_BROKEN', '1')  # here
      return honest_update(global_step=global_step, **arguments)
    """,
  ),
  Broken(
    name='second_process_fails',
    kind='exception',
    code="""
    def update_params(global_step, **arguments):
      if global_step == 2 and torch.distributed.is_initialized() and torch.distributed.get_rank():
        raise KeyError('a_name_that_is_not_there')  # here
      return honest_update(global_step=global_step, **arguments)
    """,
  ),
  Broken(
    name='one_device_is_enough',
    kind='exception',
    framework='jax',
    code="""
    def update_params(train_state, global_step, **arguments):
      if global_step == 2:
        [device] = jax.devices()  # here
      return honest_update(train_state=train_state, global_step=global_step, **arguments)
    """,
  ),
)
