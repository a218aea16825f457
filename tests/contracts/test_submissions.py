"""What every submission promises, checked over all that is found in submissions/."""

from __future__ import annotations

import importlib.util
import inspect
import re

import pytest

from algorithmic_efficiency.benchmark import registry, search_space
from tests.unit import training_toys as toys

# The functions of AlgoPerf, with their parameters in order.
SIGNATURES = {
  'get_batch_size': ('workload_name',),
  'init_optimizer_state': (
    'workload',
    'model_params',
    'model_state',
    'hyperparameters',
    'rng',
  ),
  'update_params': (
    'workload',
    'current_param_container',
    'current_params_types',
    'model_state',
    'hyperparameters',
    'batch',
    'loss_type',
    'optimizer_state',
    'eval_results',
    'global_step',
    'rng',
  ),
  'data_selection': (
    'workload',
    'input_queue',
    'optimizer_state',
    'current_param_container',
    'model_state',
    'hyperparameters',
    'global_step',
    'rng',
  ),
}
INFO_FIELDS = (
  'submission_name',
  'submission_folder',
  'authors',
  'affiliations',
  'version',
  'ruleset',
  'framework',
  'description',
  'paper',
)
OPTIONAL = {'label_smoothing', 'dropout_rate', 'grad_clip', 'micro_batches'}  # have defaults
FRAMEWORK_NAMES = {'jax': 'JAX', 'pytorch': 'PyTorch'}
PACKAGES = {'jax': 'jax', 'pytorch': 'torch'}

# AlgoPerf's baselines: the batch sizes of its target-setting runs.
ALGOPERF_BATCH_SIZES = {
  'criteo1tb': 262_144,
  'fastmri': 32,
  'imagenet_resnet': 1_024,
  'imagenet_resnet_silu': 512,
  'imagenet_resnet_gelu': 512,
  'imagenet_vit': 1_024,
  'imagenet_vit_glu': 512,
  'librispeech_conformer': 256,
  'librispeech_deepspeech': 256,
  'ogbg': 512,
  'wmt': 128,
  'finewebedu_lm': 64,
}

FOUND = registry.submissions().values()
EXTERNAL = [entry for entry in FOUND if entry.ruleset == 'external']
PAIRS = [(entry, framework) for entry in FOUND for framework in entry.frameworks]


def _id(value):
  return f'{value.ruleset}-{value.name}' if isinstance(value, registry.SubmissionFolder) else value


every_submission = pytest.mark.parametrize('entry', FOUND, ids=_id)
every_module = pytest.mark.parametrize(('entry', 'framework'), PAIRS, ids=_id)


def _module(entry, framework):
  if importlib.util.find_spec(PACKAGES[framework]) is None:
    pytest.skip(f'{framework} is not installed')
  return toys.submission(entry.ruleset, entry.name, framework)


def test_the_baselines_are_found():
  names = {(entry.ruleset, entry.name) for entry in FOUND}
  baselines = ('adamw', 'nadamw', 'nesterov', 'momentum')
  assert names >= {(kind, name) for kind in ('external', 'self') for name in baselines}
  assert not any(name.startswith('_') for _, name in names)


@every_module
def test_functions_have_the_parameters_of_algoperf(entry, framework):
  module = _module(entry, framework)
  for function, expected in SIGNATURES.items():
    names = list(inspect.signature(getattr(module, function)).parameters)
    assert tuple(name for name in names if name != 'train_state') == expected, function


@every_module
def test_batch_sizes(entry, framework):
  get_batch_size = _module(entry, framework).get_batch_size
  runnable = [d for d in registry.workloads().values() if registry.is_runnable(d, framework)]
  assert runnable
  for definition in runnable:
    size = get_batch_size(definition.name)
    assert isinstance(size, int) and size > 0
  for name, size in ALGOPERF_BATCH_SIZES.items():
    assert get_batch_size(name) == size, name
  with pytest.raises(ValueError, match='no_such_workload'):
    get_batch_size('no_such_workload')


@pytest.mark.parametrize('entry', EXTERNAL, ids=_id)
def test_the_search_space_has_what_the_code_reads(entry):
  space = search_space.load(entry.tuning_search_space)
  assert len(search_space.points(space, 5, seed=0)) == 5
  for framework in entry.frameworks:
    read = _hyperparameters_read(entry.file(framework))
    assert set(space.names) - OPTIONAL == read, framework


def _hyperparameters_read(file):
  return set(re.findall(r'\bhyperparameters\.(\w+)', file.read_text(encoding='utf-8')))


@pytest.mark.parametrize('entry', [e for e in FOUND if e.ruleset == 'self'], ids=_id)
def test_self_tuning_reads_no_hyperparameters(entry):
  assert entry.tuning_search_space is None
  for framework in entry.frameworks:
    assert not _hyperparameters_read(entry.file(framework))


@every_submission
def test_info_says_what_is_there(entry):
  text = (entry.folder / 'submission_info.yml').read_text(encoding='utf-8')
  fields = dict(re.findall(r'^(\w+): "(.+)"$', text, re.MULTILINE))
  assert tuple(fields) == INFO_FIELDS
  assert fields['submission_folder'] == f'{entry.ruleset}_tuning/{entry.name}'
  assert fields['ruleset'] == entry.ruleset
  assert fields['framework'] == ', '.join(FRAMEWORK_NAMES[name] for name in entry.frameworks)


@every_submission
def test_readme_names_a_source(entry):
  assert 'https://' in (entry.folder / 'README.md').read_text(encoding='utf-8')


@every_module
def test_fault_13_every_baseline_runs(entry, framework):
  # One of the reference's baselines for self tuning cannot run at all.
  import numpy as np

  module = _module(entry, framework)
  workload, params, place = _toy(framework)
  workload.metrics_logger = toys.Logger()
  point = None
  if entry.ruleset == 'external':
    point = search_space.as_object(
      search_space.points(search_space.load(entry.tuning_search_space), 1, seed=0)[0]
    )
  rng = np.array([1, 2], np.uint32)
  state = module.init_optimizer_state(workload, params, None, point, rng)
  queue = iter(toys.batches(3))
  for step in range(3):
    batch = module.data_selection(workload, queue, state, params, None, point, step, rng)
    state, params, model_state = module.update_params(
      current_param_container=params,
      model_state=None,
      batch=place(batch),
      optimizer_state=state,
      **toys.update_arguments(workload, point, step, rng),
    )
    assert model_state is None
  assert _moved(framework, params)
  assert set(workload.metrics_logger.rows[0][1]) == {'loss', 'grad_norm'}


def _toy(framework):
  if framework == 'jax':
    import jax

    return toys.JaxWorkload(), jax.device_put(toys.params()), lambda batch: batch
  return toys.TorchWorkload(), toys.torch_model(toys.params()), toys.torch_batch


def _moved(framework, params):
  import numpy as np

  if framework == 'pytorch':
    params = {name: value.detach().numpy() for name, value in params.named_parameters()}
  start = toys.params()
  return any(not np.array_equal(params[name], start[name]) for name in start)
