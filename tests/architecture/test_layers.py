"""Imports go towards the contracts only. Every rule here reads the sources; nothing is imported."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest
from sources import CORE, OURS, ROOT, Import, files, imports, module_name, tree

# The layer of each room of the core. A room may import its own layer and those below.
CONTRACTS, TOOLS, FRAMEWORK, CONTENT, TRIAL, LAUNCH, EXPERIMENTS, OUTSIDE = range(8)
LAYERS = {
  **dict.fromkeys(('', 'clock', 'errors', 'option_fields', 'seeds', 'spec', 'trust'), CONTRACTS),
  'benchmark': CONTRACTS,
  **dict.fromkeys(('results', 'data', 'metrics'), TOOLS),
  **dict.fromkeys(('backends', 'layers', 'training', 'optimizers', 'compat'), FRAMEWORK),
  'updates': FRAMEWORK,  # the former name of two of them
  # Workloads and submissions are CONTENT.
  'trial': TRIAL,
  **dict.fromkeys(('launch', 'launchers'), LAUNCH),
  'experiments': EXPERIMENTS,
  **dict.fromkeys(('cli', 'entries', 'submission_runner', 'api', '__main__'), OUTSIDE),
}

# What scoring may import of the core.
FOR_SCORING = ('spec', 'errors', 'benchmark', 'results')

FRAMEWORKS = {
  'jax': ('jax', 'jaxlib', 'flax', 'optax', 'chex', 'orbax'),
  'torch': ('torch', 'torchvision', 'torchaudio'),
}
# The only files, besides submissions, that may import a framework; by the framework.
FRAMEWORK_FILES = {
  'jax': (
    f'{CORE}/backends/jax.py',
    f'{CORE}/backends/_jax_*.py',
    f'{CORE}/layers/jax.py',
    f'{CORE}/layers/_jax_*.py',
    f'{CORE}/training/jax.py',
    f'{CORE}/optimizers/jax.py',
    f'{CORE}/optimizers/jax_*.py',
    f'{CORE}/compat/jax_*.py',
    f'{CORE}/diagnostics/jax*.py',
    'workloads/*/*_jax.py',
  ),
  'torch': (
    f'{CORE}/backends/torch.py',
    f'{CORE}/backends/_torch_*.py',
    f'{CORE}/layers/torch.py',
    f'{CORE}/layers/_torch_*.py',
    f'{CORE}/training/torch.py',
    f'{CORE}/optimizers/torch.py',
    f'{CORE}/optimizers/torch_*.py',
    f'{CORE}/compat/pytorch_*.py',
    f'{CORE}/diagnostics/torch*.py',
    'workloads/*/*_torch.py',
  ),
}
FIRST_IMPORTABLE = (
  'msgspec',
  'numpy',
)  # what modules that `algoeff --help` may meet import at once
AT_ONCE = {
  f'{CORE}.submission_runner': ('absl',),  # it is an application of absl
  f'{CORE}.trial.processes': ('psutil',),
  f'{CORE}.launch.view': ('rich',),  # which a terminal alone has imported
}


def part(name: str) -> str:
  """The room of the core that an import name lies in; '' is the package itself."""
  words = name.split('.')
  return words[1] if len(words) > 1 and words[1] in LAYERS else ''


def matches(file: Path, patterns: tuple[str, ...]) -> bool:
  return any(file.relative_to(ROOT).match(pattern) for pattern in patterns)


def framework_of(item: Import) -> str | None:
  return next((name for name, packages in FRAMEWORKS.items() if item.top in packages), None)


def breaches(*packages: str) -> list[Import]:
  return [item for file in files(*packages) for item in imports(file)]


def test_every_room_of_the_core_has_a_layer():
  found = {part_of.stem for part_of in (ROOT / CORE).glob('*.py') if part_of.stem != '__init__'}
  found |= {folder.parent.name for folder in (ROOT / CORE).glob('*/__init__.py')}
  assert found == set(LAYERS) - {''}, 'give these a layer, as the design has it'


def test_the_core_imports_its_own_layer_and_those_below():
  wrong = []
  for item in breaches(CORE):
    if item.top != CORE:
      continue
    own, other = LAYERS[part(module_name(item.file))], LAYERS[part(item.name)]
    if other > own:
      wrong.append(f'{item} (layer {other} from layer {own})')
  assert not wrong


def test_no_rooms_import_each_other_in_a_circle():
  """Not even through third ones; what is imported in functions counts, too."""
  reached: dict[str, set[str]] = {room: set() for room in LAYERS}
  for item in breaches(CORE):
    if item.top == CORE and item.when != 'types':
      reached[part(module_name(item.file))].add(part(item.name))
  for room in LAYERS:
    reached[room] -= {room, ''}
  order = graphlib.TopologicalSorter(reached)
  order.prepare()  # raises CycleError, which names the rooms


def test_the_core_imports_no_content_and_only_commands_import_scoring():
  wrong = [
    str(item)
    for item in breaches(CORE)
    if item.top in ('workloads', 'submissions')
    or (item.top == 'scoring' and LAYERS[part(module_name(item.file))] < OUTSIDE)
  ]
  assert not wrong


@pytest.mark.parametrize('package', ['workloads', 'submissions'])
def test_content_imports_contracts_tools_and_frameworks_only(package: str):
  wrong = [
    str(item)
    for item in breaches(package)
    if item.top == 'scoring' or (item.top == CORE and LAYERS[part(item.name)] >= CONTENT)
  ]
  assert not wrong


@pytest.mark.parametrize('package', ['workloads', 'submissions'])
def test_no_content_imports_other_content(package: str):
  wrong = []
  for item in breaches(package):
    own_folder = module_name(item.file.parent / '__init__.py')
    if item.top in ('workloads', 'submissions') and not f'{item.name}.'.startswith(
      f'{own_folder}.'
    ):
      wrong.append(str(item))
  assert not wrong


def test_a_definition_imports_contracts_and_the_standard_library_only():
  """So do the files beside it that it imports."""
  wrong = []
  for file in (ROOT / 'workloads').glob('*/definition.py'):
    seen, queue = set(), [file]
    while queue:
      current = queue.pop()
      seen.add(current)
      for item in imports(current):
        beside = file.parent / f'{item.name.split(".")[2]}.py' if item.top == 'workloads' else None
        if beside is not None and beside.is_file():
          queue += [] if beside in seen else [beside]
        elif item.top == CORE and item.name.startswith(
          (f'{CORE}.spec', f'{CORE}.benchmark.definition')
        ):
          continue
        elif not item.is_standard:
          wrong.append(str(item))
  assert not wrong


def test_scoring_imports_no_framework_and_of_the_core_only_what_it_may():
  wrong = [
    str(item)
    for item in breaches('scoring')
    if framework_of(item)
    or item.top in ('tensorflow', 'workloads', 'submissions')
    or (item.top == CORE and part(item.name) not in FOR_SCORING)
  ]
  assert not wrong


def test_contracts_import_the_standard_library_and_numpy_only():
  wrong = [
    str(item)
    for item in breaches(CORE)
    if LAYERS[part(module_name(item.file))] == CONTRACTS
    and not (item.is_standard or item.top in (CORE, 'numpy'))
  ]
  assert not wrong


def test_frameworks_are_imported_only_where_they_belong_and_never_together():
  wrong = []
  for item in breaches(CORE, 'workloads', 'scoring'):
    framework = framework_of(item)
    if framework and not matches(item.file, FRAMEWORK_FILES[framework]):
      wrong.append(str(item))
  for file in files('submissions'):
    used = {framework_of(item) for item in imports(file)} - {None}
    if len(used) > 1 and file.stem != 'submission':
      wrong.append(f'{file} imports both frameworks')
  assert not wrong


def test_tensorflow_is_imported_nowhere():
  assert not [str(item) for item in breaches() if item.top == 'tensorflow']


def test_what_the_command_line_meets_imports_heavy_libraries_in_functions_only():
  allowed = {*FIRST_IMPORTABLE, *OURS}
  wrong = [
    str(item)
    for item in breaches(CORE, 'scoring', 'workloads')
    if item.when == 'import'
    and not (item.is_standard or item.top in allowed or framework_of(item))
    and item.top not in AT_ONCE.get(module_name(item.file), ())
  ]
  assert not wrong


def test_nothing_outside_the_backends_asks_which_framework():
  """Models and submissions come in two files, found by name; nothing else compares the name."""
  wrong = []
  for file in files():
    if (ROOT / CORE / 'backends') in file.parents:
      continue
    for node in ast.walk(tree(file)):
      if isinstance(node, ast.Compare) and _compares_a_framework(node):
        wrong.append(f'{file.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}')
  assert not wrong


def _compares_a_framework(node: ast.Compare) -> bool:
  sides = [node.left, *node.comparators]
  names = {
    side.attr if isinstance(side, ast.Attribute) else getattr(side, 'id', '') for side in sides
  }
  texts = {
    leaf.value for side in sides for leaf in ast.walk(side) if isinstance(leaf, ast.Constant)
  }
  return 'framework' in names and bool(texts & {'jax', 'pytorch', 'torch'})
