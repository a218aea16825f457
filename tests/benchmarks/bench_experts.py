"""What experts cost: forward and backward pass, without the optimizer; and the runner.

Run: python tests/benchmarks/bench_experts.py [layer|model|step] [ROUNDS]
Figures are of CPU time on one thread, ratios of medians of steps that alternate. There are `ROUNDS`
rounds of five steps of each, 9 by default. Nothing is asserted.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import bench_runner
import numpy as np

from algorithmic_efficiency import backends, spec
from algorithmic_efficiency.backends.base import Devices, TaskCode
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.layers.configs import ExpertsConfig, FeedForwardConfig

# The layer, at the sizes of `quick_moe`.
NUM_TOKENS, DIM = 768, 64
EXPERT = FeedForwardConfig(hidden_dim=64, activation='silu', gate='input', use_bias=False)
LAYERS = {
  'plain': replace(EXPERT, hidden_dim=2 * EXPERT.hidden_dim),
  'sorted': ExpertsConfig(num_experts=8, top_k=2, expert=EXPERT),
  'more experts': ExpertsConfig(num_experts=32, top_k=2, expert=EXPERT),
}
NUM_ROUNDS, STEPS_PER_ROUND = '9', 5
WORKLOADS = ('quick_moe', 'digits_moe')
SUFFIXES = ('', '_dense', '_top1', '_more_experts')
RUNNER_STEPS_PER_BURST = 30
WORDS = np.array([1, 2], np.uint32)
ONE_THREAD = {
  'OMP_NUM_THREADS': '1',
  'XLA_FLAGS': '--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1',
}

Step = Callable[[], None]


def main(part: str = '', rounds: str = NUM_ROUNDS, *arguments: str) -> None:
  if part in _MEASURES:  # in a process of its own
    print(json.dumps(_medians(_MEASURES[part](*arguments), int(rounds))))
    return
  parts = {'layer': _layer, 'model': _model, 'step': _step}
  for name in [part] if part else parts:
    parts[name](rounds)


def _in_a_process(*arguments: str) -> dict[str, float]:
  command, environment = [sys.executable, __file__, *arguments], {**os.environ, **ONE_THREAD}
  result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
  return json.loads(result.stdout.splitlines()[-1])


def _medians(steps: dict[str, Step], num_rounds: int) -> dict[str, float]:
  """Milliseconds of CPU time a step, by name."""
  for step in steps.values():
    step()
  times: dict[str, list[float]] = {name: [] for name in steps}
  for _ in range(num_rounds):
    for name, step in steps.items():
      times[name] += [1e3 * bench_runner.seconds(step)[1] for _ in range(STEPS_PER_ROUND)]
  return {name: statistics.median(found) for name, found in times.items()}


# One layer.


def _layer(rounds: str) -> None:
  for framework in backends.FRAMEWORKS:
    found = _in_a_process('layer_ms', rounds, framework)
    ratios = ', '.join(
      f'{name} {ms:.2f} ms ({ms / found["plain"]:.2f})' for name, ms in found.items()
    )
    print(f'layer, {framework}, {NUM_TOKENS} tokens, over the plain MLP: {ratios}')


def _layer_ms(framework: str) -> dict[str, Step]:
  make = {'jax': _jax_layer, 'pytorch': _torch_layer}[framework]
  random = np.random.default_rng(0)
  x = random.standard_normal((NUM_TOKENS, DIM), np.float32)
  steps = {name: make(config, x) for name, config in LAYERS.items()}
  for name in ('sorted', 'more experts'):
    loop = {'jax': _jax_loop, 'pytorch': _torch_loop}[framework]
    steps[f'loop over {LAYERS[name].num_experts}'] = loop(LAYERS[name], x)
  if framework == 'jax':
    steps['one-hot einsum'] = _jax_one_hot(x)
  return steps


def _jax_step(function: Callable[..., Any], *arguments: Any) -> Step:
  import jax

  differentiate = jax.jit(jax.grad(function, argnums=tuple(range(len(arguments)))))
  return lambda: jax.block_until_ready(differentiate(*arguments))


def _jax_layer(config: Any, x: np.ndarray) -> Step:
  import jax
  import jax.numpy as jnp

  from algorithmic_efficiency.layers import jax as layers

  if isinstance(config, FeedForwardConfig):
    module, options = layers.FeedForward(config, jnp.float32), ()
  else:
    module, options = layers.Experts(config, jnp.float32), (np.ones(len(x), bool),)
  params = jax.jit(lambda key: module.init(key, x, *options, train=True))(jax.random.key(0))

  def squares(params: Any, x: jax.Array) -> jax.Array:
    out = module.apply(params, x, *options, train=True)
    return jnp.sum(jnp.square(out[0] if options else out))

  return _jax_step(squares, params, jnp.asarray(x))


def _jax_loop(config: ExpertsConfig, x: np.ndarray) -> Step:
  """The same experts one by one, each on all tokens, as shapes must be known."""
  import jax
  import jax.numpy as jnp

  from algorithmic_efficiency.layers import jax as layers

  layer, is_token = layers.Experts(config, jnp.float32), np.ones(len(x), bool)
  params = jax.jit(lambda key: layer.init(key, x, is_token, train=True))(jax.random.key(0))

  def squares(params: Any, x: jax.Array) -> jax.Array:
    routes = layers.route(x @ params['router']['kernel'], is_token, config, train=True)
    out, kernels = jnp.zeros_like(x), params['experts']
    for expert in range(config.num_experts):
      hidden = jax.nn.silu(x @ kernels['first'][expert]) * (x @ kernels['gate'][expert])
      weights = jnp.sum(jnp.where(routes.experts == expert, routes.weights, 0), axis=1)
      out += weights[:, None] * (hidden @ kernels['last'][expert])
    return jnp.sum(jnp.square(out))

  return _jax_step(squares, params['params'], jnp.asarray(x))


def _torch_loop(config: ExpertsConfig, x: np.ndarray) -> Step:
  """The same experts one by one, each on its own tokens."""
  import torch

  from algorithmic_efficiency.layers import torch as layers

  torch.manual_seed(0)
  layer = layers.Experts(config, dim=DIM, dtype=torch.float32)
  inputs, is_token = torch.tensor(x, requires_grad=True), torch.ones(len(x), dtype=torch.bool)

  def step() -> None:
    layer.zero_grad()
    routes = layers.route(layer.router(inputs), is_token, config, train=True)
    out, kernels = torch.zeros_like(inputs), layer.experts
    for expert in range(config.num_experts):
      tokens, choices = torch.where(routes.experts == expert)
      own = inputs[tokens]
      hidden = torch.nn.functional.silu(own @ kernels.first[expert].T)
      hidden = hidden * (own @ kernels.gate[expert].T)
      weights = routes.weights[tokens, choices, None]
      out = out.index_add(0, tokens, weights * (hidden @ kernels.last[expert].T))
    out.square().sum().backward()

  return step


def _jax_one_hot(x: np.ndarray) -> Step:
  """The same experts by products with a mask [tokens, experts, slots], at a capacity of 1.25."""
  import jax
  import jax.numpy as jnp

  from algorithmic_efficiency.layers import jax as layers

  config = LAYERS['sorted']
  layer = layers.Experts(config, jnp.float32)
  is_token = np.ones(len(x), bool)
  params = jax.jit(lambda key: layer.init(key, x, is_token, train=True))(jax.random.key(0))
  params = params['params']
  num_slots = int(1.25 * config.top_k * len(x) / config.num_experts)

  def squares(params: Any, x: jax.Array) -> jax.Array:
    routes = layers.route(x @ params['router']['kernel'], is_token, config, train=True)
    chosen = jax.nn.one_hot(routes.experts, config.num_experts)  # [tokens, choices, experts]
    places = jnp.cumsum(chosen.reshape(-1, config.num_experts), axis=0).reshape(chosen.shape) - 1
    mask = jax.nn.one_hot(places, num_slots) * chosen[..., None]
    weighted = jnp.einsum('tkes,tk->tes', mask, routes.weights)
    kernels = params['experts']
    given = jnp.einsum('tkes,td->esd', mask, x)
    hidden = jax.nn.silu(jnp.einsum('esd,edh->esh', given, kernels['first']))
    hidden *= jnp.einsum('esd,edh->esh', given, kernels['gate'])
    out = jnp.einsum('esh,ehd->esd', hidden, kernels['last'])
    return jnp.sum(jnp.square(jnp.einsum('tes,esd->td', weighted, out)))

  return _jax_step(squares, params, jnp.asarray(x))


def _torch_layer(config: Any, x: np.ndarray) -> Step:
  import torch

  from algorithmic_efficiency.layers import torch as layers

  torch.manual_seed(0)
  sizes: dict[str, Any] = {'dim': DIM, 'dtype': torch.float32}
  if isinstance(config, FeedForwardConfig):
    module, options = layers.FeedForward(config, **sizes), {}
  else:
    is_token = torch.ones(len(x), dtype=torch.bool)
    module, options = layers.Experts(config, **sizes), {'is_token': is_token, 'train': True}
  inputs = torch.tensor(x, requires_grad=True)

  def step() -> None:
    module.zero_grad()
    out = module(inputs, **options)
    (out[0] if options else out).square().sum().backward()

  return step


# The whole model.


def _model(rounds: str) -> None:
  for name in WORKLOADS:
    for framework in backends.FRAMEWORKS:
      found = _in_a_process('model_ms', rounds, framework, name)
      base = found[name]
      ratios = ', '.join(f'{one} {ms:.1f} ms ({ms / base:.2f})' for one, ms in found.items())
      print(f'model, {framework}, over {name}: {ratios}')


def _model_ms(framework: str, name: str) -> dict[str, Step]:
  """Forward and backward pass of training on one generated batch."""
  return {f'{name}{suffix}': _training(framework, f'{name}{suffix}') for suffix in SUFFIXES}


def _training(framework: str, name: str) -> Step:
  backend = backends.start(framework, Devices(platform='cpu', num_devices=1))
  definition = registry.workload(name)
  code = TaskCode.of(definition, framework)
  workload = backend.workload(definition, code, next(iter(definition.suites.values())))
  key = backend.key(WORDS)
  batch = backend.place(code.data.fake_batch(definition, definition.batch_sizes.train, 0))
  params, model_state = workload.init_model_fn(key)

  def mean_loss(params: Any) -> Any:
    train = spec.ForwardPassMode.TRAIN
    logits, _ = workload.model_fn(params, batch, model_state, train, key, update_batch_norm=True)
    loss = workload.loss_fn(batch['targets'], logits, batch['weights'])
    return loss['summed'] / loss['n_valid_examples']

  if framework == 'jax':
    return _jax_step(mean_loss, params)

  def step() -> None:
    params.zero_grad()
    mean_loss(params).backward()

  return step


# The runner.


def _step(rounds: str) -> None:
  with tempfile.TemporaryDirectory() as folder:
    for framework in backends.FRAMEWORKS:
      arguments = [framework, folder, 'quick_moe', 'quick', str(RUNNER_STEPS_PER_BURST)]
      subprocess.run([sys.executable, bench_runner.__file__, *arguments], check=True)


_MEASURES = {'layer_ms': _layer_ms, 'model_ms': _model_ms}


if __name__ == '__main__':
  main(*sys.argv[1:])
