"""What language models cost: the token loss in chunks, the runner, and the whole on a GPU.

Run: python tests/benchmarks/bench_lm.py [loss|step|gpu]
Each figure comes from a process of its own; nothing is asserted.
"""

from __future__ import annotations

import json
import math
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench_runner
import numpy as np

from algorithmic_efficiency import backends, spec
from algorithmic_efficiency.backends.base import Backend, Devices, TaskCode
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.trial import submission

# The loss: a vocabulary and a width as those of the largest model.
LENGTH, DIM, VOCAB_SIZE = 1024, 1024, 50_257
LOSS_BATCH_SIZE = {'cpu': 4, 'gpu': 64}
LOSS_DTYPE = {'cpu': 'float32', 'gpu': 'bfloat16'}
KINDS = ('plain', 'chunked')
NUM_ROUNDS = 6

RUNNER_STEPS_PER_BURST = 30

# The whole model.
GPU_WORKLOAD = 'finewebedu_lm'
NUM_WARM_STEPS, NUM_TIMED_STEPS = 5, 20
# Dense bfloat16 products, by a part of the device's name, from the makers' data sheets.
PEAK_FLOPS = {'H100': 989e12, 'H200': 989e12, 'A100': 312e12}
WORDS = np.array([1, 2], np.uint32)


def main(part: str = '', *arguments: str) -> None:
  if part in _MEASURES:  # in a process of its own
    print(json.dumps(_MEASURES[part](*arguments)))
    return
  parts = {'loss': _loss, 'step': _step, 'gpu': _gpu}
  for name in [part] if part else parts:
    parts[name]()


def _in_a_process(*arguments: str) -> Any:
  command = [sys.executable, __file__, *arguments]
  output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
  return json.loads(output.splitlines()[-1])


# The loss, its value and gradients.


def _loss() -> None:
  for framework in backends.FRAMEWORKS:
    plain, chunked = (_in_a_process('loss_memory', framework, kind) for kind in KINDS)
    peaks = f'{plain["peak_mib"]:,.0f} MiB plain, {chunked["peak_mib"]:,.0f} MiB in chunks'
    above = [one['peak_mib'] - one['before_mib'] for one in (plain, chunked)]
    print(
      f'loss, {framework} on {plain["where"]}: memory peak of the process {peaks}, '
      f'ratio {plain["peak_mib"] / chunked["peak_mib"]:.2f}; of the step alone '
      f'{above[0]:,.0f} and {above[1]:,.0f} MiB, ratio {above[0] / above[1]:.2f}'
    )
    if 'compiled_mib' in plain:
      print(
        f'  buffers of the compiled program: {plain["compiled_mib"]:,.0f} and '
        f'{chunked["compiled_mib"]:,.0f} MiB, '
        f'ratio {plain["compiled_mib"] / chunked["compiled_mib"]:.2f}'
      )
    seconds = _in_a_process('loss_seconds', framework)
    print(
      f'  time: {seconds["plain"]:.3f} s plain, {seconds["chunked"]:.3f} s in chunks, '
      f'ratio {seconds["ratio"]:.3f}; of the time on processors {seconds["processor_ratio"]:.3f}'
    )


def _loss_memory(framework: str, kind: str) -> dict[str, Any]:
  """Peak before and after two steps."""
  backend = backends.start(framework, Devices(num_devices=1))
  step, about = _LOSS_STEPS[framework](backend, kind)
  before = _now_mib(backend)
  for _ in range(2):
    step()
  return {'before_mib': before, 'peak_mib': _peak_mib(backend), **about}


def _loss_seconds(framework: str) -> dict[str, float]:
  """Medians of steps that alternate; other work on the machine is felt less on processor time."""
  backend = backends.start(framework, Devices(num_devices=1))
  steps = {kind: _LOSS_STEPS[framework](backend, kind)[0] for kind in KINDS}
  for step in steps.values():
    step()
  rounds = [
    {kind: bench_runner.seconds(steps[kind]) for kind in (KINDS if turn % 2 else reversed(KINDS))}
    for turn in range(NUM_ROUNDS)
  ]
  medians = {kind: statistics.median(one[kind][0] for one in rounds) for kind in KINDS}
  ratio, processor_ratio = (
    statistics.median(one['chunked'][i] / one['plain'][i] for one in rounds) for i in range(2)
  )
  return {**medians, 'ratio': ratio, 'processor_ratio': processor_ratio}


def _inputs(batch_size: int) -> tuple[np.ndarray, ...]:
  """Hidden states, kernel and targets."""
  rng = np.random.default_rng(0)
  hidden = rng.standard_normal((batch_size, LENGTH, DIM), np.float32)
  kernel = rng.standard_normal((VOCAB_SIZE, DIM), np.float32)
  kernel *= 0.02
  return hidden, kernel, rng.integers(0, VOCAB_SIZE, (batch_size, LENGTH), np.int32)


def _jax_loss_step(backend: Backend, kind: str) -> tuple[Callable[[], None], dict[str, Any]]:
  import jax
  import jax.numpy as jnp

  from algorithmic_efficiency.layers import jax as layers

  platform = backend.describe()['platform']
  batch_size, dtype = LOSS_BATCH_SIZE[platform], jnp.dtype(LOSS_DTYPE[platform])
  hidden, kernel, targets = map(jax.device_put, _inputs(batch_size))
  hidden = hidden.astype(dtype)

  def mean(hidden: jax.Array, kernel: jax.Array, targets: jax.Array) -> jax.Array:
    if kind == 'plain':
      logits = hidden @ kernel.astype(hidden.dtype).T
    else:
      logits = layers.vocab_logits(hidden, kernel)
    loss = layers.token_loss(targets, logits)
    return loss['summed'] / loss['n_valid_examples']

  differentiate = jax.jit(jax.value_and_grad(mean, argnums=(0, 1)))
  program = differentiate.lower(hidden, kernel, targets).compile()
  compiled_mib = program.memory_analysis().temp_size_in_bytes / 2**20

  def step() -> None:
    jax.block_until_ready(program(hidden, kernel, targets))

  return step, {'where': f'{platform}, batch {batch_size}', 'compiled_mib': compiled_mib}


def _torch_loss_step(backend: Backend, kind: str) -> tuple[Callable[[], None], dict[str, Any]]:
  import torch

  from algorithmic_efficiency.layers import torch as layers

  platform = backend.describe()['platform']
  device = torch.device('cuda' if platform == 'gpu' else 'cpu')
  batch_size, dtype = LOSS_BATCH_SIZE[platform], getattr(torch, LOSS_DTYPE[platform])
  hidden, kernel, targets = (torch.from_numpy(x).to(device) for x in _inputs(batch_size))
  hidden, kernel = hidden.to(dtype).requires_grad_(), kernel.requires_grad_()

  def step() -> None:
    hidden.grad = kernel.grad = None
    if kind == 'plain':
      logits = hidden @ kernel.to(hidden.dtype).T
    else:
      logits = layers.vocab_logits(hidden, kernel)
    loss = layers.token_loss(targets, logits)
    (loss['summed'] / loss['n_valid_examples']).backward()
    backend.synchronize()

  return step, {'where': f'{platform}, batch {batch_size}'}


_LOSS_STEPS = {'jax': _jax_loss_step, 'pytorch': _torch_loss_step}


def _peak_mib(backend: Backend) -> float:
  """The device's memory where it is known, else the process's."""
  peak = backend.peak_memory_bytes()
  return peak['device'] / 2**20 if 'device' in peak else _of_process_mib('VmHWM')


def _now_mib(backend: Backend) -> float:
  return _peak_mib(backend) if 'device' in backend.peak_memory_bytes() else _of_process_mib('VmRSS')


def _of_process_mib(name: str) -> float:
  """Memory of this process alone; that of `getrusage` begins with the parent's."""
  found = re.search(rf'^{name}:\s+(\d+) kB', Path('/proc/self/status').read_text(), re.M)
  assert found
  return int(found[1]) / 2**10


# The runner.


def _step() -> None:
  with tempfile.TemporaryDirectory() as folder:
    for framework in backends.FRAMEWORKS:
      arguments = [framework, folder, 'quick_lm', 'quick', str(RUNNER_STEPS_PER_BURST)]
      subprocess.run([sys.executable, bench_runner.__file__, *arguments], check=True)


# The whole model on a GPU.


def _gpu() -> None:
  if not Path('/proc/driver/nvidia/gpus').is_dir():
    print(f'{GPU_WORKLOAD}: left out, there is no GPU')
    return
  for framework in backends.FRAMEWORKS:
    found = _in_a_process('training', framework)
    utilisation = f'{found["utilisation"]:.1%}' if found['utilisation'] else 'not known'
    print(
      f'{GPU_WORKLOAD}, {framework} on {found["device"]}, batch {found["batch_size"]}: '
      f'{found["tokens_per_sec"]:,.0f} tokens/s, {found["step_ms"]:.1f} ms a step, memory peak '
      f'{found["peak_mib"]:,.0f} MiB, model-FLOP utilisation {utilisation}; '
      f'attention by {", ".join(found["attention"]) or "no fused kernel"}'
    )


def _training(framework: str) -> dict[str, Any]:
  """Steps of the baseline on one generated batch, which is on the device already."""
  backend = backends.start(framework, Devices(platform='gpu', num_devices=1))
  definition = registry.workload(GPU_WORKLOAD)
  task = TaskCode.of(definition, framework)
  workload = backend.workload(definition, task, definition.suites['full'])
  entry = submission.load(registry.submission('nadamw', 'self').file(framework), framework)
  batch = backend.place(task.data.fake_batch(definition, definition.batch_sizes.train, 0))
  rng = backend.key(WORDS)
  params, model_state = workload.init_model_fn(rng)
  optimizer_state = entry.init_optimizer_state(workload, params, model_state, None, rng)
  state: dict[str, Any] = {
    'current_param_container': params,
    'model_state': model_state,
    'optimizer_state': optimizer_state,
  }
  num_steps = 0

  def step() -> None:
    nonlocal num_steps
    state['optimizer_state'], state['current_param_container'], state['model_state'] = (
      entry.update_params(
        workload=workload,
        current_params_types=workload.model_params_types,
        hyperparameters=None,
        batch=batch,
        loss_type=workload.loss_type,
        eval_results=[],
        global_step=num_steps,
        rng=rng,
        **state,
      )
    )
    num_steps += 1

  for _ in range(NUM_WARM_STEPS):
    step()
  backend.synchronize()
  start = time.perf_counter()
  for _ in range(NUM_TIMED_STEPS):
    step()
  backend.synchronize()
  step_sec = (time.perf_counter() - start) / NUM_TIMED_STEPS
  device = backend.describe()['device_kind']
  batch_size, length = batch['targets'].shape
  peak_flops = next((peak for name, peak in PEAK_FLOPS.items() if name in device), None)
  flops = _training_flops(definition, task, framework, batch_size)
  return {
    'device': device,
    'batch_size': batch_size,
    'step_ms': 1e3 * step_sec,
    'tokens_per_sec': batch_size * length / step_sec,
    'peak_mib': _peak_mib(backend),
    'utilisation': flops / step_sec / peak_flops if peak_flops else None,
    'attention': _ATTENTION_KERNELS[framework](workload, params, batch),
  }


def _training_flops(
  definition: WorkloadDefinition, task: TaskCode, framework: str, batch_size: int
) -> float:
  """Of a step, forward and backward, without what is computed again.

  Two for each parameter and token (a tied embedding is the output kernel), and for attention those
  of the half that a causal mask leaves; three times that, as the backward pass has twice as many.
  """
  parameters = backends.module(framework).parameters(definition, task)
  num_params = sum(math.prod(shape) for _, shape, _ in parameters)
  config, length = definition.model, definition.data.sequence_length
  of_attention = 2 * config.num_layers * length * config.dim
  return 3 * batch_size * length * (2 * num_params + of_attention)


def _jax_attention_kernels(workload: Any, params: Any, batch: Any) -> list[str]:
  """Of the compiled forward and backward pass."""
  import jax

  program = jax.jit(jax.grad(lambda params: _summed_loss(workload, params, batch)))
  text = program.lower(jax.eval_shape(workload.init_model_fn, WORDS)[0]).compile().as_text()
  return sorted(set(re.findall(r'custom_call_target="([^"]*fmha[^"]*)"', text)))


def _torch_attention_kernels(workload: Any, params: Any, batch: Any) -> list[str]:
  """Of those that a forward and a backward pass ran."""
  from torch import profiler

  with profiler.profile(activities=[profiler.ProfilerActivity.CUDA]) as profile:
    _summed_loss(workload, params, batch).backward()
  names = {event.key.split('<')[0] for event in profile.key_averages()}
  return sorted(name for name in names if re.search('flash|fmha|sdpa', name))


def _summed_loss(workload: Any, params: Any, batch: Any) -> Any:
  train = spec.ForwardPassMode.TRAIN
  logits, _ = workload.model_fn(params, batch, None, train, WORDS, update_batch_norm=False)
  return workload.loss_fn(batch['targets'], logits)['summed']


_ATTENTION_KERNELS = {'jax': _jax_attention_kernels, 'pytorch': _torch_attention_kernels}
_MEASURES = {'loss_memory': _loss_memory, 'loss_seconds': _loss_seconds, 'training': _training}


if __name__ == '__main__':
  main(*sys.argv[1:])
