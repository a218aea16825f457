"""What is particular to the residual networks and the vision Transformers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch')

import vision_twin  # noqa: E402

from algorithmic_efficiency.backends._torch_backend import TorchBackend  # noqa: E402
from algorithmic_efficiency.backends.base import Devices, TaskCode  # noqa: E402
from algorithmic_efficiency.benchmark import registry  # noqa: E402
from algorithmic_efficiency.spec import ForwardPassMode  # noqa: E402

RESIDUAL = ['imagenet_resnet', 'imagenet_resnet_silu', 'cifar', 'cifar_small_no_norm']
TRANSFORMERS = ['imagenet_vit', 'imagenet_vit_glu', 'imagenet_vit_post_ln', 'imagenet_vit_map']
TWINS = {
  **dict.fromkeys(RESIDUAL, vision_twin.residual_net),
  **dict.fromkeys(TRANSFORMERS, vision_twin.vision_transformer),
}
TRAIN, EVAL = ForwardPassMode.TRAIN, ForwardPassMode.EVAL
BACKEND = TorchBackend(torch.device('cpu'), Devices(), compiles=False)


def small(name):
  return registry.workload(name).for_smoke()


def code_of(definition):
  return registry.module_of(definition, 'pytorch')


def fake_batch(definition, dtype=np.float32):
  batch = registry.module_of(definition, 'data').fake_batch(definition, 8, 0)
  return {**batch, 'inputs': batch['inputs'].astype(dtype)}


def randomized(definition, dtype=torch.float32):
  """A model of which no two parameters are alike."""
  torch.manual_seed(0)
  model = code_of(definition).build(definition, dtype=dtype)
  with torch.no_grad():
    for parameter in model.parameters():
      parameter += 0.1 * torch.randn_like(parameter)
  return model


def logits_of(definition, model, batch, *, train=True, use_running_average=False, dropout_rate=0.0):
  placed = BACKEND.place(batch)
  with torch.no_grad():
    return code_of(definition).forward(
      model,
      placed,
      train=train,
      use_running_average=use_running_average,
      dropout_rate=dropout_rate,
    )


# The forward pass.


@pytest.mark.parametrize('name', TWINS)
def test_logits_are_those_of_a_plain_twin(name):
  definition = small(name)
  model = randomized(definition, torch.float64)
  batch = fake_batch(definition, np.float64)
  state = {key: value.numpy() for key, value in model.state_dict().items()}
  params, _ = registry.module_of(definition, 'parity').to_jax(definition, state)
  expected = TWINS[name](definition.model, params, batch['inputs'])
  np.testing.assert_allclose(logits_of(definition, model, batch), expected, rtol=1e-9, atol=1e-9)


def test_a_stage_of_several_blocks_projects_and_halves_once():
  definition = small('cifar')
  definition = replace(definition, model=replace(definition.model, stage_sizes=(1, 2)))
  model = randomized(definition, torch.float64)
  batch = fake_batch(definition, np.float64)
  state = {key: value.numpy() for key, value in model.state_dict().items()}
  params, _ = registry.module_of(definition, 'parity').to_jax(definition, state)
  expected = vision_twin.residual_net(definition.model, params, batch['inputs'])
  np.testing.assert_allclose(logits_of(definition, model, batch), expected, rtol=1e-9, atol=1e-9)
  assert [hasattr(block, 'downsample') for block in model.layer2] == [True, False]


@pytest.mark.parametrize('name', ['imagenet_resnet', 'imagenet_vit_map'])
def test_logits_are_float32_where_the_model_computes_in_bfloat16(name):
  definition = small(name)
  batch = fake_batch(definition)
  exact = logits_of(definition, randomized(definition), batch)
  found = logits_of(definition, randomized(definition, torch.bfloat16), batch)
  assert found.dtype == torch.float32
  assert 0 < (found - exact).abs().max() < 0.1 * exact.abs().max()


def test_convolutions_keep_channels_last_in_memory():
  definition = small('imagenet_resnet')
  model = code_of(definition).build(definition)
  seen = []
  for module in model.modules():
    if isinstance(module, (torch.nn.Conv2d, torch.nn.BatchNorm2d)):
      module.register_forward_hook(lambda module, inputs, output: seen.append(output))
  logits_of(definition, model, fake_batch(definition))
  assert len(seen) == 18
  assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)
  assert all(weight.is_contiguous() for weight in model.parameters())


# Batch norm.


def test_batch_norm_follows_the_arguments_of_the_call():
  definition = small('imagenet_resnet')
  code = TaskCode.of(definition, 'pytorch')
  workload = BACKEND.workload(definition, code, definition.suites['full'])
  model, batch = randomized(definition), BACKEND.place(fake_batch(definition))

  def logits(mode, **options):
    return workload.model_fn(model, batch, None, mode, None, **options)[0].detach()

  before = {name: value.clone() for name, value in model.named_buffers()}
  by_batch = logits(TRAIN, update_batch_norm=False)
  assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
  by_running = logits(EVAL, update_batch_norm=False)
  torch.testing.assert_close(
    logits(TRAIN, update_batch_norm=False, use_running_average_bn=True), by_running
  )
  torch.testing.assert_close(logits(TRAIN, update_batch_norm=True), by_batch)
  assert not torch.allclose(by_batch, by_running)
  changed = [name for name, value in model.named_buffers() if not torch.equal(value, before[name])]
  assert len(changed) == 2 * 9  # mean and variance of every norm, the projections' among them


# Dropout.


@pytest.mark.parametrize('name', ['imagenet_vit', 'imagenet_vit_map'])
def test_dropout_of_transformers(name):
  definition = small(name)
  model, batch = randomized(definition), fake_batch(definition)

  def logits(train, rate, seed=0):
    torch.manual_seed(seed)
    return logits_of(definition, model, batch, train=train, dropout_rate=rate)

  plain = logits(True, 0.0)
  torch.testing.assert_close(logits(False, 0.9), plain)
  torch.testing.assert_close(logits(True, 0.5), logits(True, 0.5))
  assert not torch.allclose(logits(True, 0.5), plain)
  assert not torch.allclose(logits(True, 0.5), logits(True, 0.5, seed=1))


def test_residual_networks_have_no_dropout():
  """As in AlgoPerf, whose entries give all models the rate of their own choice."""
  definition = small('cifar')
  model, batch = randomized(definition), fake_batch(definition)
  torch.testing.assert_close(
    logits_of(definition, model, batch, dropout_rate=0.9), logits_of(definition, model, batch)
  )


# The first weights.

# Large enough for a deviation to be measured.
WIDE = {
  'imagenet_resnet': {'stage_sizes': (1,), 'num_filters': 32},
  'imagenet_resnet_large_bn_init': {'stage_sizes': (1,), 'num_filters': 32},
  'imagenet_vit_map': {'width': 64, 'depth': 1, 'mlp_dim': 128},
}


def wide(name):
  definition = small(name)
  return replace(definition, model=replace(definition.model, **WIDE[name]))


def expected_deviation(definition, name, shape):
  """Of the weights of an array with this name and shape in PyTorch; None for constants."""
  if len(shape) < 2:
    return 1e-6 if 'linear' in name else None  # biases of feed-forward layers
  outputs, inputs = shape[0], int(np.prod(shape[1:]))
  if name == 'fc.weight':
    return 0.01
  if name == 'head.weight':
    return 0.0
  if name == 'map.probe':
    return np.sqrt(2 / (1 + inputs))
  if 'conv' in name or name == 'pre_logits.weight':
    return np.sqrt(1 / inputs)
  outputs //= 2 if 'kv_proj' in name else 1  # each part begins on its own
  return np.sqrt(2 / (outputs + inputs))


def assert_first_weights(definition, arrays):
  for name, array in arrays.items():
    expected = expected_deviation(definition, name, array.shape)
    if expected is None:
      is_last = name == 'layer1.0.bn3.weight'
      is_norm = 'weight' in name or 'var' in name
      constant = definition.model.last_bn_scale if is_last else float(is_norm)
      np.testing.assert_array_equal(array, constant, err_msg=name)
      continue
    # Five standard errors of the deviation of so many draws of a normal distribution.
    tolerance = 5 / np.sqrt(2 * array.size)
    assert array.std() == pytest.approx(expected, rel=tolerance, abs=0), name


@pytest.mark.parametrize('name', WIDE)
def test_first_weights_in_pytorch(name):
  definition = wide(name)
  torch.manual_seed(0)
  state = code_of(definition).build(definition).state_dict()
  assert_first_weights(definition, {key: value.numpy() for key, value in state.items()})


@pytest.mark.slow
@pytest.mark.parametrize('name', WIDE)
def test_first_weights_in_jax(name):
  jax = pytest.importorskip('jax')
  from flax import linen as nn

  definition = wide(name)
  code = registry.module_of(definition, 'jax')
  init = nn.init(code.forward, code.build(definition))
  batch = fake_batch(definition)
  variables = dict(
    jax.jit(lambda key: init(key, batch, train=False, use_running_average=True, dropout_rate=0.0))(
      jax.random.key(0)
    )
  )
  params = variables.pop('params')
  arrays = registry.module_of(definition, 'parity').to_torch(definition, params, variables)
  assert_first_weights(definition, arrays)
