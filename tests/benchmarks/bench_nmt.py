"""What translation costs: the runner, beam search with and without caches, and evaluations.

Run: python tests/benchmarks/bench_nmt.py [step|search|decode|share [WORKLOAD [DATA_DIR]]]
Each figure comes from a process of its own; nothing is asserted. `search` and `decode` are those of
the model of Multi30k with fresh weights, which end no translation. So each takes as many steps as
there can be, and `decode` is a bound for the validation split.
"""

from __future__ import annotations

import functools
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bench_runner
import numpy as np

from algorithmic_efficiency import backends, cli
from algorithmic_efficiency.backends.base import Devices, TaskCode
from algorithmic_efficiency.benchmark import registry

RUNNER_STEPS_PER_BURST = 30
NUM_SENTENCES = 32  # of a batch, as the search without caches is slow
NUM_ROUNDS = 2
SOURCE_TOKENS = (8, 24)  # of most sentences of Multi30k
WORDS = np.array([1, 2], np.uint32)


def main(part: str = '', *arguments: str) -> None:
  if part in _MEASURES:  # in a process of its own
    print(json.dumps(_MEASURES[part](*arguments)))
    return
  parts = {'step': _step, 'search': _search, 'decode': _decode, 'share': _share}
  for name in [part] if part else parts:
    parts[name](*arguments)


def _in_a_process(*arguments: str) -> Any:
  command = [sys.executable, __file__, *arguments]
  output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
  return json.loads(output.splitlines()[-1])


def _step() -> None:
  """A step with packed rows, in the runner and in a bare loop."""
  with tempfile.TemporaryDirectory() as folder:
    for framework in backends.FRAMEWORKS:
      arguments = [framework, folder, 'quick_nmt', 'quick', str(RUNNER_STEPS_PER_BURST)]
      subprocess.run([sys.executable, bench_runner.__file__, *arguments], check=True)


# Beam search.


def _search() -> None:
  for framework in backends.FRAMEWORKS:
    found = _in_a_process('searches', framework)
    print(
      f'search, {framework}, {found["sentences"]} sentences, {found["length"]} tokens: with caches '
      f'{found["cached_sec"]:.2f} s, without {found["plain_sec"]:.2f} s, '
      f'ratio {found["ratio"]:.1f}; of CPU time {found["cpu_ratio"]:.1f}; '
      f'{found["same"]:.1%} of translations are the same'
    )


def _searches(framework: str) -> dict[str, float]:
  """Times of both searches, which alternate, without the first call, which compiles."""
  definition, task, params = _fresh(framework, num_threads=1)
  length = definition.data.max_length
  inputs = _sources(definition, NUM_SENTENCES, width=length)
  searches = [
    functools.partial(search, inputs) for search in _SEARCHES[framework](definition, task, params)
  ]
  first = [search() for search in searches]
  rounds: list[list[tuple[float, float]]] = [
    [bench_runner.seconds(search) for search in searches] for _ in range(NUM_ROUNDS)
  ]
  cached, plain = (min(one[i][0] for one in rounds) for i in range(2))
  cached_cpu, plain_cpu = (min(one[i][1] for one in rounds) for i in range(2))
  return {
    'sentences': NUM_SENTENCES,
    'length': length,
    'cached_sec': cached,
    'plain_sec': plain,
    'ratio': plain / cached,  # of the fastest, as both alternate
    'cpu_ratio': plain_cpu / cached_cpu,
    'same': float((first[0] == first[1]).all(axis=1).mean()),
  }


def _fresh(framework: str, *, num_threads: int | None) -> tuple[Any, TaskCode, Any]:
  """The definition of Multi30k, its code and its first weights."""
  devices = Devices(platform='cpu', num_devices=1, num_threads=num_threads)
  backend = backends.start(framework, devices)
  definition = registry.workload('multi30k')
  task = TaskCode.of(definition, framework)
  workload = backend.workload(definition, task, definition.suites['lite'])
  params, _ = workload.init_model_fn(backend.key(WORDS))
  return definition, task, params


def _sources(definition: Any, number: int, *, width: int) -> np.ndarray:
  """Sentences of generated tokens, int32 [number, width]."""
  random = np.random.default_rng(0)
  tokens = random.integers(3, definition.data.vocab_size, (number, width), np.int32)
  shortest, longest = SOURCE_TOKENS
  lengths = random.integers(shortest, min(longest, width) + 1, (number, 1))
  return np.where(np.arange(width) < lengths, tokens, 0)


def _decode() -> None:
  for framework in backends.FRAMEWORKS:
    found = _in_a_process('decodes', framework)
    print(
      f'decode, {framework}, {found["sentences"]} sentences, 4 beams, 64 tokens each: '
      f'{found["sec"]:.1f} s, {found["cpu_sec"]:.1f} s of CPU time, '
      f'{found["compile_sec"]:.1f} s more for the first batch'
    )


def _decodes(framework: str, part: str = '1') -> dict[str, float]:
  """Times of as many sentences as the validation split has, or of a part of them."""
  definition, task, params = _fresh(framework, num_threads=None)
  number = round(definition.splits.validation * float(part))
  size = definition.batch_sizes.eval
  sources = _sources(definition, math.ceil(number / size) * size, width=SOURCE_TOKENS[1])
  batches = np.split(sources, len(sources) // size)
  search, _ = _SEARCHES[framework](definition, task, params)
  first_sec, _ = bench_runner.seconds(lambda: search(batches[0]))
  sec, cpu_sec = bench_runner.seconds(lambda: [search(batch) for batch in batches])
  return {
    'sentences': number,
    'sec': sec,
    'cpu_sec': cpu_sec,
    'compile_sec': first_sec - sec / len(batches),
  }


def _options(definition: Any) -> dict[str, Any]:
  search = definition.model.search
  return {
    'end_token': 2,
    'num_beams': search.num_beams,
    'length_penalty': search.length_penalty,
    'max_length': definition.data.max_length,
  }


def _jax_searches(
  definition: Any, task: TaskCode, params: Any
) -> Sequence[Callable[[np.ndarray], np.ndarray]]:
  """The search with caches, and without."""
  import jax
  import jax.numpy as jnp
  from flax import linen as nn

  from algorithmic_efficiency.layers import jax as layers

  model = task.model.build(definition)
  options = _options(definition)

  @jax.jit
  def cached(params: Any, inputs: Any) -> Any:
    def bound(model: Any) -> Any:
      return task.model.generate(definition, model, {'inputs': inputs}, is_last=True)

    return nn.apply(bound, model)({'params': params})['tokens']

  @jax.jit
  def plain(params: Any, inputs: Any) -> Any:
    variables = {'params': params}
    num_beams = options['num_beams']
    sources = jnp.repeat(inputs, num_beams, axis=0)
    encoded = jnp.repeat(model.apply(variables, {'inputs': inputs}, method='encode'), num_beams, 0)

    def step(tokens: Any, cache: Any) -> Any:
      index = cache['index'][0]
      known = cache['known'].at[:, index].set(tokens)
      # Targets are shifted by one: the first token is the start.
      targets = jnp.roll(known, -1, axis=1).at[:, index].set(1)
      batch = {'inputs': sources, 'targets': targets}
      hidden = model.apply(variables, encoded, batch, method='decode')[:, index]
      logits = hidden @ params['shared_embedding']['embedding'].T
      return jax.nn.log_softmax(logits), {'known': known, 'index': cache['index'] + 1}

    rows = len(inputs)
    cache = {'known': jnp.zeros(inputs.shape, jnp.int32), 'index': jnp.zeros(rows, jnp.int32)}
    start = jnp.zeros(rows, jnp.int32)
    return layers.beam_search(step, cache, start_tokens=start, **options).tokens[:, 0]

  return [lambda inputs, run=run: np.asarray(run(params, inputs)) for run in (cached, plain)]


def _torch_searches(
  definition: Any, task: TaskCode, model: Any
) -> Sequence[Callable[[np.ndarray], np.ndarray]]:
  """See `_jax_searches`."""
  import torch

  from algorithmic_efficiency.layers import torch as layers

  options = _options(definition)

  @torch.no_grad()
  def cached(inputs: np.ndarray) -> np.ndarray:
    placed = {'inputs': torch.tensor(inputs)}
    return task.model.generate(definition, model, placed, is_last=True)['tokens'].numpy()

  @torch.no_grad()
  def plain(inputs: np.ndarray) -> np.ndarray:
    num_beams, placed = options['num_beams'], {'inputs': torch.tensor(inputs)}
    sources = placed['inputs'].repeat_interleave(num_beams, 0)
    encoded = model.encode(placed).repeat_interleave(num_beams, 0)

    def step(tokens: Any, known: Any) -> Any:
      known = torch.cat([known, tokens[:, None]], 1)
      # Targets are shifted by one: the first token is the start.
      targets = torch.cat([known[:, 1:], torch.ones_like(known[:, :1])], 1)
      hidden = model.decode(encoded, {'inputs': sources, 'targets': targets})[:, -1]
      return (hidden @ model.shared_embedding.weight.T).log_softmax(-1), known

    start = torch.zeros(len(inputs), dtype=torch.int32)
    empty = torch.zeros((len(inputs), 0), dtype=torch.int32)
    return layers.beam_search(step, empty, start_tokens=start, **options).tokens[:, 0].numpy()

  return cached, plain


# Evaluations.


def _share(workload: str = 'quick_nmt', *data_dir: str) -> None:
  """The share of evaluations in the wall time of a whole trial."""
  data = [*(f'--data_dir={one}' for one in data_dir)]
  with tempfile.TemporaryDirectory() as folder:
    for framework in backends.FRAMEWORKS:
      began = time.perf_counter()
      cli.main(
        [
          *('run', '--workload', workload, '--framework', framework, '--submission', 'nadamw'),
          *('--ruleset', 'self', '--stop_at', 'never', '--experiment_dir', folder, *data),
          *('--allow_provisional', '--quiet'),
        ]
      )
      command_sec = time.perf_counter() - began
      (path,) = Path(folder).rglob(f'{workload}_{framework}/trial_1/trial.json')
      clock = json.loads(path.read_text())['buckets']
      wall_sec = sum(clock.values())
      print(
        f'{workload}, {framework}: {wall_sec:.1f} s of wall time ({command_sec:.1f} s for the '
        f'command), of which evaluations {clock["eval"] / wall_sec:.1%}; '
        + ', '.join(f'{name} {seconds:.1f} s' for name, seconds in clock.items())
      )


_SEARCHES = {'jax': _jax_searches, 'pytorch': _torch_searches}
_MEASURES = {'searches': _searches, 'decodes': _decodes}


if __name__ == '__main__':
  main(*sys.argv[1:])
