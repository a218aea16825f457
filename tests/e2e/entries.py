# ruff: noqa: E501 - the code of an entry stands as its author would write it
"""Entries as people have written them for AlgoPerf: one at least for everything that those published
need from a harness. All are our own; each does one thing that some published entry does.

`ROWS` numbers these needs as `reference/submission-compat.md` lists them: by section, in its order.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from entry_bases import JIT, PMAP, TORCH

ROWS: Mapping[str, str] = {
  '3.1': '`spec`, with every name used in annotations',
  '3.2': '`pytorch_utils.pytorch_setup`, read at import',
  '3.3': '`jax_sharding_utils`',
  '3.4': 'members of the workload; it is hashable',
  '3.5': '`model_fn`: positional in JAX, by keyword in PyTorch, `dropout_rate` or none',
  '3.6': '`loss_fn`: values of one device, a tensor to reduce',
  '3.7': 'batches are dicts, `weights` optional; several are drawn in a call',
  '3.8': 'hyperparameters: attributes, `hasattr`, any scalar; None in self tuning',
  '3.9': 'the parameter container',
  '3.10': '`eval_results` with `validation/<target metric>`',
  '3.11': '`update_params` by keyword, `train_state` where declared',
  '4.1': 'two layouts in JAX, told apart by `jax.pmap`',
  '4.2': 'parameters are replicated before `init_optimizer_state`',
  '4.3': 'buffers are donated at every step',
  '4.4': 'the optimizer state is opaque, and saved all the same',
  '4.5': 'batch norm updates off and on, two forward passes',
  '4.6': '`data_selection` returns the iterator',
  '4.7': '`TrainingCompleteError`',
  '4.8': '`prepare_for_eval` replaces the parameters, and training goes on from them',
  '4.9': '`get_batch_size` knows the base workload, or none',
  '4.10': 'batch sizes by the name of the workload',
  '4.11': 'names of parameters in flax, by path',
  '4.12': 'names of parameters in PyTorch, `module.` and all',
  '4.13': 'closures that evaluate the model again, `p.data` edited between passes',
  '4.14': '`torch.distributed.nn.all_reduce` of loss and count',
  '4.15': 'relative imports, and absolute ones by the official checkout',
  '4.16': 'one module under four names',
  '5.1': 'not valid Python',
  '5.2': 'needs CUDA',
  '5.3': 'needs a number of processes',
  '5.4': 'fails by its own arithmetic',
  '5.5': '`jax.tree_map`',
  '5.6': '`jnp.clip(a_min=)`',
  '5.7': 'needs a package',
}

FIVE_POINTS: tuple[Mapping[str, Any], ...] = (
  {'learning_rate': 0.01, 'beta1': 0.9, 'label_smoothing': 0.1, 'grad_clip': 1, 'nesterov': True},
  {'beta1': 0.95, 'learning_rate': 0.02, 'nesterov': False, 'grad_clip': 5.0, 'label_smoothing': 0},
  {
    'learning_rate': 0.03,
    'beta1': 0.8,
    'label_smoothing': 0.2,
    'grad_clip': None,
    'nesterov': True,
  },
  {'learning_rate': 1e-3, 'beta1': 0.9, 'label_smoothing': 0.1, 'grad_clip': 'x', 'nesterov': True},
  {'learning_rate': 1e-4, 'beta1': 0.9, 'label_smoothing': 0.1, 'grad_clip': 1, 'nesterov': True},
)


@dataclass(frozen=True, kw_only=True)
class StandIn:
  """One entry.

  Attributes:
    name: of its folder; the official imports name it.
    framework: as in flags.
    rows: what it stands for.
    code: Python that comes after `base` and replaces parts of it.
    swaps: what stands in `base`, and what stands there instead.
    files: others in its folder.
    external: whether it comes with five points and is tuned, or tunes itself.
    stop_reason: how a trial of it ends.
    refusal: parts of the message with which it is refused; empty where it runs.
  """

  name: str
  framework: Literal['jax', 'pytorch']
  rows: tuple[str, ...]
  base: str
  code: str = ''
  swaps: Mapping[str, str] = field(default_factory=dict)
  files: Mapping[str, str] = field(default_factory=dict)
  external: bool = False
  stop_reason: str = 'step_limit'
  refusal: tuple[str, ...] = ()

  def write(self, root: Path) -> Path:
    """Makes the folder of the entry below `root`; returns its submission module."""
    folder = root / self.name
    module = self.base
    for old, new in self.swaps.items():
      assert old in module, (self.name, old)
      module = module.replace(old, new)
    files = {'submission.py': f'{module}\n{textwrap.dedent(self.code)}', **self.files}
    if self.external:
      files['tuning_search_space.json'] = json.dumps(FIVE_POINTS)
    for name, content in files.items():
      file = folder / name
      file.parent.mkdir(parents=True, exist_ok=True)
      file.write_text(content if name == 'submission.py' else textwrap.dedent(content))
    return folder / 'submission.py'


_NO_TREE_MAP = {'jax.tree_map': 'jax.tree_util.tree_map'}
_BY_CONSTANTS = {
  'hyperparameters.learning_rate': '0.01',
  'hyperparameters.beta1': '0.9',
}

# Its average is there in time only if the number at which it begins is odd.
MOVING_AVERAGE = """
import math

step = update_params
start = init_optimizer_state


def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
  state = start(workload, model_params, model_state, hyperparameters, rng)
  return {**state, 'average': None, 'begin': math.ceil(workload.step_hint * FRACTION)}


def update_params(workload, current_param_container, current_params_types, model_state,
                  hyperparameters, batch, loss_type, optimizer_state, eval_results,
                  global_step, rng):
  state = optimizer_state
  for inner in range(2):
    state, model, model_state = step(
        workload, current_param_container, current_params_types, model_state, hyperparameters,
        next(batch), loss_type, state, eval_results, global_step, rng)
    update = 2 * global_step + inner
    if inner > 0 and update == state['begin']:
      state['average'] = [p.detach().clone() for p in model.parameters()]
    elif update > state['begin']:
      for a, p in zip(state['average'], model.parameters()):
        a.lerp_(p.detach(), 0.1)
  return state, model, model_state


def data_selection(workload, input_queue, *others):
  return input_queue
"""

STAND_INS: tuple[StandIn, ...] = (
  # With jax.pmap.
  StandIn(
    name='pmap_of_2024',
    framework='jax',
    rows=('3.1', '3.4', '3.5', '3.6', '3.8', '4.1', '4.3', '4.9', '4.10', '5.5'),
    base=PMAP,
    external=True,
  ),
  StandIn(
    name='pmap_of_2025',
    framework='jax',
    rows=('3.11', '4.1', '4.8'),
    base=PMAP,
    swaps={
      **_NO_TREE_MAP,
      'from algorithmic_efficiency import spec': 'from algoperf import spec',
      '    rng: spec.RandomState,\n) -> spec.UpdateReturn:\n  del current_params_types': (
        '    rng: spec.RandomState,\n    train_state: Optional[Dict[str, Any]] = None,\n'
        ') -> spec.UpdateReturn:\n  del current_params_types, train_state'
      ),
    },
    code="""
    def prepare_for_eval(
        workload: spec.Workload, current_param_container: spec.ParameterContainer,
        current_params_types: spec.ParameterTypeTree, model_state: spec.ModelAuxiliaryState,
        hyperparameters: spec.Hyperparameters, loss_type: spec.LossType,
        optimizer_state: spec.OptimizerState, eval_results: List[Tuple[int, float]],
        global_step: int, rng: spec.RandomState) -> spec.UpdateReturn:
      return optimizer_state, current_param_container, model_state
    """,
    external=True,
  ),
  StandIn(
    name='pmap_by_names',
    framework='jax',
    rows=('3.4', '3.9', '4.2', '4.11'),
    base=PMAP,
    swaps=_BY_CONSTANTS,
    code="""
    import re

    SCALES = ((r'[Ee]mbed.*embedding', 0.5), (r'(query|key|value|out)/kernel', 0.7),
              (r'(Norm|norm|ln|attn).*(scale|bias)', 1.0), (r'kernel', 1.0), (r'bias', 2.0))


    def scale_of(path, shape):
      assert all(isinstance(entry, jax.tree_util.DictKey) for entry in path)
      name = '/'.join(entry.key for entry in path)
      for pattern, scale in SCALES:
        if re.search(pattern, name):
          if pattern.startswith('(query') and len(shape) != 3:
            raise ValueError(f'Attention kernel {name} of shape {shape} is not 3-D.')
          return scale
      raise ValueError(f'Unrecognized parameter name: {name}.')


    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
      params = jax_utils.unreplicate(model_params)
      shapes = jax.tree_map(lambda shape: shape.shape_tuple, workload.param_shapes,
                            is_leaf=lambda leaf: hasattr(leaf, 'shape_tuple'))
      assert jax.tree_map(jnp.shape, params) == shapes
      scales = jax.tree_util.tree_map_with_path(lambda p, x: scale_of(p, x.shape), params)
      optimizer = optax.chain(
          optax.scale_by_adam(),
          optax.stateless(lambda updates, _: jax.tree_map(jnp.multiply, updates, scales)),
          optax.scale(-0.01))
      return jax_utils.replicate(optimizer.init(params)), optimizer.update
    """,
  ),
  StandIn(
    name='pmap_package',
    framework='jax',
    rows=('4.4', '4.15', '5.5'),
    base=PMAP,
    swaps={
      **_BY_CONSTANTS,
      'from algorithmic_efficiency import spec': (
        'from algorithmic_efficiency import spec\n\nfrom .learned import rules'
      ),
      'optimizer = make_optimizer(hyperparameters)': 'optimizer = rules.make_optimizer()',
    },
    files={
      'learned/rules.py': """
        import pathlib
        from typing import NamedTuple

        import jax
        import jax.numpy as jnp
        import numpy as np
        import optax
        from jax import tree_map

        from . import shapes
        from .. import constants

        THETA = np.fromstring(
            (pathlib.Path(__file__).parent / 'theta.state').read_text(), sep=' ')


        class State(NamedTuple):
          moments: dict
          iteration: int


        def make_optimizer():
          def init(params):
            return State(tree_map(jnp.zeros_like, params), jnp.zeros((), jnp.int32))

          def update(grads, state, params):
            moments = tree_map(lambda m, g: THETA[0] * m + g, state.moments, grads)
            steps = tree_map(lambda m: -constants.RATE * shapes.sign(m) * THETA[1], moments)
            return steps, State(moments, state.iteration + 1)

          return optax.GradientTransformation(init, update)
      """,
      'learned/shapes.py': 'from jax.numpy import sign\n',
      'learned/theta.state': '0.9 0.5\n',
      'constants.py': 'RATE = 0.01\n',
    },
  ),
  StandIn(
    name='pmap_official_place',
    framework='jax',
    rows=('3.8', '4.15'),
    base=PMAP,
    swaps={
      'from algorithmic_efficiency import spec': (
        'from algorithmic_efficiency import spec\n'
        'from submissions.submissions_algorithms_v0_5.AlgoPerf_Team_99.external_tuning'
        '.pmap_official_place.caspr import adaptive\n'
        'import submissions.submissions_algorithms_v0_5.AlgoPerf_Team_99.external_tuning'
        '.pmap_official_place.caspr.adaptive as again'
      ),
      'optimizer = make_optimizer(hyperparameters)': (
        'assert again is adaptive\n  optimizer = adaptive.make_optimizer(hyperparameters)'
      ),
    },
    files={
      'caspr/__init__.py': '',
      'caspr/adaptive.py': """
        import optax


        def make_optimizer(hyperparameters):
          return optax.sgd(hyperparameters.learning_rate, momentum=hyperparameters.beta1,
                           nesterov=hyperparameters.nesterov)
      """,
    },
    external=True,
  ),
  StandIn(
    name='pmap_until_done',
    framework='jax',
    rows=('4.2', '4.7'),
    base=PMAP,
    swaps=_BY_CONSTANTS,
    code="""
    start = init_optimizer_state
    step = update_params


    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
      inner, update_fn = start(workload, model_params, model_state, hyperparameters, rng)
      average = jax.tree_map(jnp.copy, jax_utils.unreplicate(model_params))
      return {'inner': inner, 'average': jax_utils.replicate(average), 'decay': 0.9, 'none': None,
              'update_fn': update_fn}


    def update_params(workload, current_param_container, current_params_types, model_state,
                      hyperparameters, batch, loss_type, optimizer_state, eval_results,
                      global_step, rng):
      if global_step == 40:
        raise spec.TrainingCompleteError
      (inner, _), params, model_state = step(
          workload, current_param_container, current_params_types, model_state, hyperparameters,
          batch, loss_type, (optimizer_state['inner'], optimizer_state['update_fn']),
          eval_results, global_step, rng)
      decay = optimizer_state['decay']
      average = jax.tree_map(
          lambda a, p: decay * a + (1 - decay) * p, optimizer_state['average'], params)
      return {**optimizer_state, 'inner': inner, 'average': average}, params, model_state
    """,
    stop_reason='training_complete',
  ),
  # With jax.jit and shardings.
  StandIn(
    name='jit_on_a_mesh',
    framework='jax',
    rows=('3.1', '3.3', '3.5', '3.8', '3.11', '4.1', '4.3'),
    base=JIT,
  ),
  StandIn(
    name='jit_cautious',
    framework='jax',
    rows=('5.6',),
    base=JIT,
    code="""
    def transformed(grads):
      return jax.tree.map(
          lambda g: g / jnp.clip(jnp.mean(jnp.sign(g) > 0).astype(g.dtype), a_min=1e-3), grads)
    """,
  ),
  StandIn(
    name='jit_schedule_free',
    framework='jax',
    rows=('4.4', '4.5', '4.8'),
    base=JIT,
    swaps={
      'from algoperf import jax_sharding_utils, spec': 'from algoperf import spec',
    },
    code="""
    def make_optimizer(workload):
      return optax.contrib.schedule_free_adamw(LEARNING_RATE, warmup_steps=5)


    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
      optimizer = make_optimizer(workload)
      copies = jax.tree.map(jnp.copy, model_params)
      return {'optim_state': jax.jit(optimizer.init)(copies), 'opt': optimizer.update,
              'is_averaged': False, 'nothing': None}


    @functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2, 3, 4))
    def schedule_free_step(workload, update_fn, state, params, model_state, batch, rng):
      _, unchanged = mean_loss(params, workload, model_state, batch, rng, update_batch_norm=False)
      (loss, new_state), grads = jax.value_and_grad(mean_loss, has_aux=True)(
          params, workload, unchanged, batch, rng, update_batch_norm=True)
      updates, state = update_fn(grads, state, params)
      return state, optax.apply_updates(params, updates), new_state, loss


    def update_params(workload, current_param_container, current_params_types, model_state,
                      hyperparameters, batch, loss_type, optimizer_state, eval_results,
                      global_step, rng):
      params = current_param_container
      state = optimizer_state['optim_state']
      if optimizer_state['is_averaged']:
        params = jax.tree.map(lambda x, z: 0.9 * x + 0.1 * z, params, state.z)
      state, params, model_state, _ = schedule_free_step(
          workload, optimizer_state['opt'], state, params, model_state, batch, rng)
      return {**optimizer_state, 'optim_state': state, 'is_averaged': False}, params, model_state


    def prepare_for_eval(workload, current_param_container, current_params_types, model_state,
                         hyperparameters, loss_type, optimizer_state, eval_results, global_step,
                         rng):
      averaged = optax.contrib.schedule_free_eval_params(
          optimizer_state['optim_state'], current_param_container)
      return {**optimizer_state, 'is_averaged': True}, averaged, model_state
    """,
  ),
  StandIn(
    name='jit_outer_steps',
    framework='jax',
    rows=('3.9', '4.4', '4.8'),
    base=JIT,
    code="""
    class Offloaded:
      '''A part of the state that lies elsewhere while it is not needed.'''

      def __init__(self, tree):
        self.tree = tree


    jax.tree_util.register_pytree_node(
        Offloaded, lambda node: ((node.tree,), None), lambda _, children: Offloaded(*children))


    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
      optimizer = make_optimizer(workload)
      inner = jax.jit(optimizer.init)(model_params)
      momentum = jax.tree.map(jnp.zeros_like, model_params)
      return (inner, Offloaded((jax.tree.map(jnp.copy, model_params), momentum))), optimizer.update


    def train_step(workload, update_fn, optimizer_state, params, model_state, batch, rng):
      inner, outer = optimizer_state
      (loss, new_state), grads = jax.value_and_grad(mean_loss, has_aux=True)(
          params, workload, model_state, batch, rng)
      updates, inner = update_fn(grads, inner, params)
      return (inner, outer), optax.apply_updates(params, updates), new_state, loss


    def prepare_for_eval(workload, current_param_container, current_params_types, model_state,
                         hyperparameters, loss_type, optimizer_state, eval_results, global_step,
                         rng):
      (inner, outer), update_fn = optimizer_state
      anchor, momentum = outer.tree
      delta = jax.tree.map(jnp.subtract, current_param_container, anchor)
      momentum = jax.tree.map(lambda m, d: 0.5 * m + d, momentum, delta)
      params = jax.tree.map(lambda a, m: a + 0.9 * m, anchor, momentum)
      outer = Offloaded((jax.tree.map(jnp.copy, params), momentum))
      return ((inner, outer), update_fn), params, model_state
    """,
  ),
  # With PyTorch.
  StandIn(
    name='torch_of_2024',
    framework='pytorch',
    rows=('3.1', '3.2', '3.5', '3.6', '3.8', '4.9', '4.10', '4.14'),
    base=TORCH,
    external=True,
  ),
  StandIn(
    name='torch_of_2025',
    framework='pytorch',
    rows=('3.11', '4.4', '4.8'),
    base=TORCH,
    swaps={
      'from algorithmic_efficiency import spec': 'from algoperf import spec',
      'from algorithmic_efficiency.pytorch_utils': 'from algoperf.pytorch_utils',
    },
    code="""
    start = init_optimizer_state
    step = update_params


    def init_optimizer_state(*arguments):
      return {**start(*arguments), 'num_calls': 0, 'label': 'ademamix', 'betas': (0.9, None),
              'slow': {}}


    def update_params(*, train_state, optimizer_state, current_param_container, **arguments):
      del train_state
      optimizer_state, model, model_state = step(
          optimizer_state=optimizer_state, current_param_container=current_param_container,
          **arguments)
      for name, p in model.named_parameters():
        slow = optimizer_state['slow'].setdefault(name, torch.zeros_like(p))
        slow.mul_(0.99).add_(p.grad, alpha=0.01)
        p.data.add_(slow, alpha=-1e-3)
      optimizer_state['num_calls'] += 1
      assert optimizer_state['num_calls'] == arguments['global_step'] + 1
      return optimizer_state, model, model_state


    def prepare_for_eval(workload, current_param_container, current_params_types, model_state,
                         hyperparameters, loss_type, optimizer_state, eval_results, global_step,
                         rng):
      return optimizer_state, current_param_container, model_state
    """,
  ),
  StandIn(
    name='torch_queue_of_weights',
    framework='pytorch',
    rows=('3.4', '3.7', '4.4', '4.6'),
    base=TORCH,
    external=True,
    code="""
    import collections

    step = update_params
    start = init_optimizer_state


    class Queue:
      '''The last few copies of the weights; it has no state_dict.'''

      def __init__(self, maxlen):
        self.maxlen = maxlen
        self.copies = collections.deque(maxlen=maxlen)

      def push(self, model):
        self.copies.append([p.detach().clone() for p in model.parameters()])

      def average(self):
        return [torch.stack(ps).mean(0) for ps in zip(*self.copies)]


    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
      state = start(workload, model_params, model_state, hyperparameters, rng)
      num_evals = workload.max_allowed_runtime_sec / workload.eval_period_time_sec
      assert num_evals > 1
      return {**state, 'queue': Queue(3), 'updates_per_call': 3}


    def update_params(workload, current_param_container, current_params_types, model_state,
                      hyperparameters, batch, loss_type, optimizer_state, eval_results,
                      global_step, rng):
      for _ in range(optimizer_state['updates_per_call']):
        optimizer_state, model, model_state = step(
            workload, current_param_container, current_params_types, model_state, hyperparameters,
            next(batch), loss_type, optimizer_state, eval_results, global_step, rng)
      optimizer_state['queue'].push(model)
      if global_step % 5 == 4:
        for p, mean in zip(model.parameters(), optimizer_state['queue'].average()):
          p.data.copy_(mean)
      return optimizer_state, model, model_state


    def data_selection(workload, input_queue, optimizer_state, current_param_container, model_state,
                       hyperparameters, global_step, rng):
      return input_queue
    """,
  ),
  StandIn(
    name='torch_moving_average',
    framework='pytorch',
    rows=('3.7', '4.4', '4.6'),
    base=TORCH,
    code='FRACTION = 0.03\n' + MOVING_AVERAGE,
  ),
  StandIn(
    name='torch_moving_average_that_fails',
    framework='pytorch',
    rows=('5.4',),
    base=TORCH,
    code='FRACTION = 0.02\n' + MOVING_AVERAGE,
    stop_reason='failed',
  ),
  StandIn(
    name='torch_schedule_free',
    framework='pytorch',
    rows=('3.9', '4.5', '4.13'),
    base=TORCH,
    code="""
    class ScheduleFree(torch.optim.Optimizer):
      '''SGD between two points: y, where gradients are taken, and x, which is evaluated.'''

      def __init__(self, params, lr):
        super().__init__(params, dict(lr=lr, k=0, train_mode=True))

      def _each(self):
        for group in self.param_groups:
          for p in group['params']:
            state = self.state[p]
            if 'z' not in state:
              state['z'] = torch.clone(p.data)
            yield group, p, state['z']

      @torch.no_grad()
      def eval(self):
        for group, p, z in self._each():
          p.data.lerp_(end=z, weight=1 - 1 / 0.9)
        for group in self.param_groups:
          group['train_mode'] = False

      @torch.no_grad()
      def train(self):
        for group, p, z in self._each():
          p.data.lerp_(end=z, weight=1 - 0.9)
        for group in self.param_groups:
          group['train_mode'] = True

      def step(self, closure):
        with torch.enable_grad():
          loss = closure()
        with torch.no_grad():
          for group, p, z in self._each():
            c = 1 / (group['k'] + 1)
            p.data.lerp_(end=z, weight=c)
            p.data.add_(p.grad, alpha=group['lr'] * (0.9 * (1 - c) - 1))
            z.sub_(p.grad, alpha=group['lr'])
          for group in self.param_groups:
            group['k'] += 1
        return loss


    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
      return {'optimizer': ScheduleFree(model_params.parameters(), lr=0.2)}


    def update_params(workload, current_param_container, current_params_types, model_state,
                      hyperparameters, batch, loss_type, optimizer_state, eval_results,
                      global_step, rng):
      model, optimizer = current_param_container, optimizer_state['optimizer']
      model.train()
      norms = [m for m in model.modules() if hasattr(m, 'running_mean')]
      if global_step % 3 == 0 and norms:
        before = [m.running_mean.clone() for m in norms]
        with torch.no_grad():
          mean_loss(workload, model, model_state, batch, rng, hyperparameters, False)
        assert all(torch.equal(m.running_mean, b) for m, b in zip(norms, before))

      def closure():
        optimizer.zero_grad()
        loss, _ = mean_loss(workload, model, model_state, batch, rng, hyperparameters)
        loss.backward()
        return loss

      optimizer.step(closure)
      if norms:
        moved = not torch.equal(norms[0].running_mean, torch.zeros_like(norms[0].running_mean))
        assert moved
      return optimizer_state, model, model_state


    def prepare_for_eval(workload, current_param_container, current_params_types, model_state,
                         hyperparameters, loss_type, optimizer_state, eval_results, global_step,
                         rng):
      optimizer_state['optimizer'].eval()
      optimizer_state['optimizer'].train()
      return optimizer_state, current_param_container, model_state
    """,
  ),
  StandIn(
    name='torch_steered',
    framework='pytorch',
    rows=('3.4', '3.10'),
    base=TORCH,
    code="""
    step = update_params


    def update_params(workload, current_param_container, current_params_types, model_state,
                      hyperparameters, batch, loss_type, optimizer_state, eval_results,
                      global_step, rng):
      if eval_results:
        metric = f'validation/{workload.target_metric_name}'
        values = [results[metric] for _, results in eval_results]
        if values[-1] < max(values):
          optimizer_state['optimizer'].param_groups[0]['lr'] *= 0.99
      elif global_step > 0:
        raise RuntimeError('There is an evaluation after the first step.')
      return step(
          workload, current_param_container, current_params_types, model_state, hyperparameters,
          batch, loss_type, optimizer_state, eval_results, global_step, rng)
    """,
  ),
  StandIn(
    name='torch_by_names',
    framework='pytorch',
    rows=('3.9', '4.4', '4.7', '4.12', '4.15'),
    base=TORCH,
    swaps={
      'from algorithmic_efficiency import spec': (
        'from algoperf import spec\n'
        'from submissions.self_tuning.torch_by_names.muon import Muon, uses_adam'
      ),
      'from algorithmic_efficiency.pytorch_utils': 'from algoperf.pytorch_utils',
      '      update_batch_norm=update_batch_norm)': (
        '      update_batch_norm=update_batch_norm,\n      dropout_rate=0.0)'
      ),
    },
    files={
      'muon.py': """
        import torch


        def uses_adam(name, p):
          return p.ndim < 2 or 'embedding' in name or 'embed_tokens' in name


        class Muon(torch.optim.Optimizer):
          def __init__(self, params, lr):
            super().__init__(params, dict(lr=lr))

          @torch.no_grad()
          def step(self):
            for group in self.param_groups:
              for p in group['params']:
                momentum = self.state[p].setdefault('momentum', torch.zeros_like(p))
                momentum.mul_(0.9).add_(p.grad)
                x = momentum.flatten(1)
                x = x / (x.norm() + 1e-7)
                for _ in range(5):
                  a = x @ x.T
                  x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
                p.add_(x.view_as(p), alpha=-group['lr'])
      """,
      'param_splitting/notes.txt': 'module.top.0.weight\n',
    },
    code="""
    import torch.distributed as dist


    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
      named = list(model_params.named_parameters())
      assert all(name.startswith('module.') == USE_PYTORCH_DDP for name, _ in named)
      adam = [p for name, p in named if uses_adam(name, p)]
      muon = [p for name, p in named if not uses_adam(name, p)]
      return {'muon': Muon(muon, lr=0.02), 'adam': torch.optim.Adam(adam, lr=0.01)}


    def update_params(workload, current_param_container, current_params_types, model_state,
                      hyperparameters, batch, loss_type, optimizer_state, eval_results,
                      global_step, rng, train_state=None):
      if global_step >= 40:
        raise spec.TrainingCompleteError
      model = current_param_container
      model.train()
      model.zero_grad()
      loss, model_state = mean_loss(workload, model, model_state, batch, rng, hyperparameters)
      loss.backward()
      for optimizer in optimizer_state.values():
        optimizer.step()
      return optimizer_state, model, model_state
    """,
    stop_reason='training_complete',
  ),
  StandIn(
    name='torch_four_names',
    framework='pytorch',
    rows=('4.16',),
    base=TORCH,
    swaps={
      'from algorithmic_efficiency import spec': (
        'from algoperf import spec\n'
        'from optimizers.preconditioned.preconditioned import Preconditioned\n'
        'from submissions_algorithms.leaderboard.external_tuning.torch_four_names'
        '.optimizers.preconditioned.kinds import DiagonalConfig\n'
        'import optimizers.preconditioned.kinds'
      ),
      'from algorithmic_efficiency.pytorch_utils': 'from algoperf.pytorch_utils',
      'torch.optim.AdamW(\n      model_params': (
        'Preconditioned(\n      config=DiagonalConfig(), params=model_params'
      ),
    },
    files={
      'optimizers/preconditioned/preconditioned.py': """
        import torch
        from kinds import DiagonalConfig
        from submissions_algorithms.leaderboard.external_tuning.torch_four_names.optimizers.preconditioned.utils import lists
        from utils.lists import preconditioner_of


        class Preconditioned(torch.optim.Optimizer):
          def __init__(self, params, config, lr):
            super().__init__(params, dict(lr=lr))
            if not isinstance(config, DiagonalConfig):
              raise NotImplementedError(f'{config} is not supported.')
            assert lists.preconditioner_of is preconditioner_of

          @torch.no_grad()
          def step(self):
            for group in self.param_groups:
              for p in group['params']:
                p.add_(p.grad / preconditioner_of(self.state[p], p.grad), alpha=-group['lr'])
      """,
      'optimizers/preconditioned/kinds.py': """
        import dataclasses


        @dataclasses.dataclass
        class DiagonalConfig:
          epsilon: float = 1e-8
      """,
      'optimizers/preconditioned/utils/__init__.py': '',
      'optimizers/preconditioned/utils/lists.py': """
        from kinds import DiagonalConfig


        def preconditioner_of(state, grad, config=DiagonalConfig()):
          total = state.setdefault('total', grad.new_zeros(grad.shape))
          return total.add_(grad.square()).sqrt().add_(config.epsilon)
      """,
    },
    external=True,
  ),
  # Those that cannot run here.
  StandIn(
    name='glued_together',
    framework='jax',
    rows=('5.1',),
    base=JIT.rstrip() + JIT.lstrip(),
    refusal=('not valid Python', 'submission.py, line'),
  ),
  StandIn(
    name='on_cuda_from_the_start',
    framework='pytorch',
    rows=('5.2',),
    base=TORCH,
    code="""
    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
      return {'estimate': torch.zeros((), device='cuda')}
    """,
    refusal=('needs a CUDA GPU', 'submission.py, line'),
  ),
  StandIn(
    name='on_cuda_at_the_first_step',
    framework='pytorch',
    rows=('5.2',),
    base=TORCH,
    swaps={'  model.train()\n': "  model.train()\n  estimate = torch.ones(1).to('cuda')\n"},
    refusal=('needs a CUDA GPU', 'submission.py, line'),
  ),
  StandIn(
    name='eight_processes',
    framework='pytorch',
    rows=('5.3',),
    base=TORCH,
    code="""
    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
      size = torch.distributed.get_world_size() if USE_PYTORCH_DDP else 1
      if size % 8:
        raise ValueError(f'The 8 trainers of a group must divide the world size; it is {size}.')
    """,
    refusal=('refuses to run here, with 1 process', '8 trainers of a group', 'submission.py, line'),
  ),
  StandIn(
    name='a_group_of_processes',
    framework='pytorch',
    rows=('5.3',),
    base=TORCH,
    code="""
    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
      return {'group': torch.distributed.new_group()}
    """,
    refusal=('needs several processes', '1 process', '--num_devices', 'submission.py, line'),
  ),
  StandIn(
    name='from_another_package',
    framework='jax',
    rows=('5.7',),
    base=PMAP,
    code='from learned_things_of_2023 import optimizers',
    refusal=(
      'needs learned_things_of_2023, which is not installed',
      'pip install learned_things_of_2023',
      'submission.py, line',
    ),
  ),
  StandIn(
    name='with_requirements',
    framework='pytorch',
    rows=('5.7',),
    base=TORCH,
    code="""
    def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
      import learned_things_of_2023
    """,
    files={'requirements.txt': 'learned_things_of_2023\n'},
    refusal=('needs learned_things_of_2023', 'requirements.txt', 'submission.py, line'),
  ),
)

BY_NAME: Mapping[str, StandIn] = {entry.name: entry for entry in STAND_INS}
