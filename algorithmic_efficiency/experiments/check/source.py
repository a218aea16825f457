"""What is found in a submission by reading its files; nothing of it is executed."""

from __future__ import annotations

import ast
import fnmatch
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.check_rules import Finding
from algorithmic_efficiency.compat import imports, submission_finder
from algorithmic_efficiency.compat.source import full_name, meanings
from algorithmic_efficiency.experiments.check import submission_info
from algorithmic_efficiency.results.submission_info import FILE

_BATCH_SIZE = frozenset({'get_batch_size', 'get_eval_batch_size'})
# The modules of ours that a submission may import, under either import root.
_OPEN_TO_SUBMISSIONS = (
  *('spec', 'training', 'optimizers', 'layers', *imports.MODULES),
  'updates',  # the former name of two of them
)
_ROOTS = ('algorithmic_efficiency', 'algoperf')
# Names whose use says something, by what it says.
_USES: Mapping[str, tuple[str, ...]] = {
  'environment': ('os.putenv', 'os.unsetenv'),
  'settings': (
    *('jax.config.update', 'jax.distributed.initialize', 'torch.distributed.init_process_group'),
    *('torch.set_num_threads', 'torch.set_num_interop_threads', 'torch.set_default_d*'),
    *('torch.set_float32_matmul_precision', 'torch.use_deterministic_algorithms'),
    *('torch.backends.cuda.enable_*', 'torch.backends.*.set_flags', 'os.sched_setaffinity'),
    *('os.nice', 'os.setpriority', 'resource.setrlimit', 'threadpoolctl.*'),
  ),
  'threads': (
    *('threading.Thread', 'threading.Timer', '_thread.start_*', 'concurrent.futures.*Executor'),
    *('multiprocessing.*', 'torch.multiprocessing.*', 'subprocess.*', 'os.fork', 'os.system'),
    *('os.popen', 'os.posix_spawn*', 'os.spawn*', 'os.exec*'),
  ),
  'files': (
    *('numpy.load', 'numpy.loadtxt', 'numpy.genfromtxt', 'numpy.fromfile', 'numpy.memmap'),
    *('torch.load', 'pickle.load*', 'joblib.load', 'safetensors.*', 'orbax.*'),
    'flax.training.checkpoints.restore_checkpoint',
  ),
  'harness': (
    *('sys._getframe', 'inspect.stack', 'inspect.currentframe', 'sys.modules'),
    *('gc.get_objects', 'gc.get_referrers', 'gc.get_referents'),
  ),
  'untimed_hook': (
    *('atexit.register', 'weakref.finalize', 'gc.callbacks', 'signal.signal', 'signal.alarm'),
    *('signal.setitimer', 'sys.settrace', 'sys.setprofile', 'sys.addaudithook', 'sys.meta_path'),
    *('threading.settrace', 'threading.setprofile'),
  ),
  'network': (
    *('socket.socket', 'socket.create_*', 'socket.getaddrinfo', 'urllib.request.*', 'urllib3.*'),
    *('http.client.*', 'requests.*', 'httpx.*', 'aiohttp.*', 'ftplib.*', 'smtplib.*'),
    *('huggingface_hub.*', 'torch.hub.*', 'wandb.*'),
  ),
}
# Attributes of modules that may not be assigned to.
_ASSIGNED: Mapping[str, tuple[str, ...]] = {
  'settings': ('jax.config.*', 'torch.backends.*'),
  'harness': ('time.*', 'algorithmic_efficiency.*', 'algoperf.*'),
}
_CHANGES_OF_A_DICT = ('update', 'setdefault', 'pop', 'popitem', 'clear')
_HARNESS_ONLY = ('_build_input_queue', '_eval_model_on_split', 'eval_model')
# What gives a workload away when it is compared with, or looked up among, constants.
_FIGURES = (
  *('num_train_examples', 'num_eval_train_examples', 'num_validation_examples'),
  *('num_test_examples', 'step_hint', 'validation_target_value', 'test_target_value'),
  *('target_metric_name', 'max_allowed_runtime_sec', 'eval_period_time_sec'),
  *('train_mean', 'train_stddev', 'eval_batch_size'),
)
_IDENTITY = ('name', '_name', 'workload_name', 'base', 'task', '_task', 'dataset', '__class__')
_LOOK_UPS = ('get', 'index', 'count')


def findings(file: Path) -> list[Finding]:
  """What the files of a submission show, in their order; where one is no Python, that alone."""
  found: dict[tuple[str, str, int], Finding] = {}
  try:
    sources = submission_finder.sources(file)
  except SyntaxError as error:
    return [_no_python(error)]
  allowed = _batch_only(sources.values())
  names = frozenset(registry.workloads())
  for path, tree in sources.items():
    for kind, node, text in _Reader(tree, names, allowed).all():
      key = (kind, str(path), node.lineno)
      found.setdefault(key, Finding(kind=kind, text=text, file=key[1], line=key[2]))
  in_order = sorted(found.values(), key=lambda finding: (finding.file, finding.line))
  return in_order + submission_info.findings(file.with_name(FILE))


def _no_python(error: SyntaxError) -> Finding:
  return Finding(
    kind='syntax', text=f'{error.msg}.', file=str(error.filename), line=error.lineno or 0
  )


def functions(file: Path) -> dict[str, tuple[str, int]]:
  """Where the functions of a submission are defined, or else imported: file and line, by name.

  There are none in a submission that is not valid Python.
  """
  try:
    sources = submission_finder.sources(file)
  except SyntaxError:
    return {}
  defined: dict[str, tuple[str, int]] = {}
  imported: dict[str, tuple[str, int]] = {}
  for path, tree in reversed(sources.items()):  # the module itself comes last, and counts
    for node in tree.body:
      if isinstance(node, ast.FunctionDef):
        defined[node.name] = (str(path), node.lineno)
      elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
          imported[alias.asname or alias.name] = (str(path), node.lineno)
  return imported | defined


# What the batch size alone uses.


@dataclass(frozen=True)
class _Unit:
  """A statement of a module's top level: what it defines, and the identifiers in it."""

  node: ast.stmt
  defines: frozenset[str]
  mentions: frozenset[str]

  @classmethod
  def of(cls, node: ast.stmt) -> _Unit:
    mentions = {leaf.id for leaf in ast.walk(node) if isinstance(leaf, ast.Name)}
    mentions |= {leaf.attr for leaf in ast.walk(node) if isinstance(leaf, ast.Attribute)}
    defines: set[str] = set()
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
      defines = {node.name}
    elif isinstance(node, (ast.Assign, ast.AnnAssign)):
      targets = node.targets if isinstance(node, ast.Assign) else [node.target]
      defines = {target.id for target in targets if isinstance(target, ast.Name)}
    return cls(node, frozenset(defines), frozenset(mentions - defines))


def _batch_only(trees: Iterable[ast.Module]) -> set[ast.stmt]:
  """The top-level statements that serve nothing but the batch size: its functions, and what all of
  whose users are such statements."""
  units = [
    _Unit.of(node)
    for tree in trees
    for node in tree.body
    if not isinstance(node, (ast.Import, ast.ImportFrom))
  ]
  allowed = {unit.node for unit in units if unit.defines & _BATCH_SIZE}
  while True:
    more = {
      unit.node for unit in units if unit.node not in allowed and _serves(unit, units, allowed)
    }
    if not more:
      return allowed
    allowed |= more


def _serves(unit: _Unit, units: list[_Unit], allowed: set[ast.stmt]) -> bool:
  users = [other.node for other in units if other is not unit and other.mentions & unit.defines]
  return bool(users) and allowed.issuperset(users)


# What one file shows.

_Shown = tuple[str, ast.expr | ast.stmt, str]  # kind, where, text


class _Reader:
  """One file.

  Args:
    names: of all workloads.
    allowed: top-level statements in which these may stand.
  """

  def __init__(self, tree: ast.Module, names: frozenset[str], allowed: set[ast.stmt]):
    self._tree = tree
    self._names = names
    self._allowed = allowed
    self._meanings = meanings(tree)

  def all(self) -> Iterator[_Shown]:
    for statement in self._tree.body:
      for node in ast.walk(statement):
        if statement not in self._allowed:
          yield from self._telling_apart(node)
        yield from self._uses(node)
        yield from self._assignments(node)
        yield from self._hooks(node)
        yield from self._imports(node)

  # Which workload it is.

  def _telling_apart(self, node: ast.AST) -> Iterator[_Shown]:
    yield from self._names_in(node)
    if isinstance(node, ast.Attribute) and _asks_identity(node):
      yield 'workload_identity', node, f'It asks for {ast.unparse(node)}.'
    elif _is_call_on_workload(node, 'type', 'isinstance'):
      yield 'workload_identity', node, 'It asks for the class of the workload.'
    for figure in _looked_up(node):
      yield 'workload_identity', figure, f'It tells workloads apart by {ast.unparse(figure)}.'

  def _names_in(self, node: ast.AST) -> Iterator[_Shown]:
    if isinstance(node, ast.Constant) and str(node.value).lower() in self._names:
      yield 'workload_name', node, f'It names the workload {node.value!r}.'
    for part, text in _parts_of_names(node):
      if any(name.startswith(f'{text.lower()}_') for name in self._names):
        yield 'workload_name', part, f'It asks for workloads that are called {text!r}.'

  # What it uses.

  def _uses(self, node: ast.AST) -> Iterator[_Shown]:
    if not isinstance(node, ast.expr):
      return
    name = full_name(node, self._meanings)
    if name is not None:
      for kind, patterns in _USES.items():
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
          yield kind, node, f'It uses {name}.'
      owner, _, method = name.rpartition('.')
      if owner == 'os.environ' and method in _CHANGES_OF_A_DICT:
        yield 'environment', node, f'It calls {name}.'
    if isinstance(node, ast.Attribute) and node.attr in _HARNESS_ONLY and _is_workload(node.value):
      yield 'data', node, f'It calls {ast.unparse(node)}, which only the harness may.'
    elif isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'open':
      yield 'files', node, 'It opens a file.'
    elif _is_call_on_workload(node, 'setattr', 'delattr'):
      yield 'harness', node, 'It changes the workload object.'

  def _assignments(self, node: ast.AST) -> Iterator[_Shown]:
    if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
      if full_name(node.value, self._meanings) == 'os.environ':
        yield 'environment', node, f'It changes {ast.unparse(node)}.'
    elif isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
      name = full_name(node, self._meanings) or ''
      for kind, patterns in _ASSIGNED.items():
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
          yield kind, node, f'It sets {name}.'
      if _is_workload(node.value) and getattr(node.value, 'id', '') != 'self':
        yield 'harness', node, f'It sets {ast.unparse(node)}.'

  def _hooks(self, node: ast.AST) -> Iterator[_Shown]:
    if isinstance(node, ast.FunctionDef) and node.name == '__del__':
      yield 'untimed_hook', node, 'It defines __del__, which runs whenever an object goes.'

  def _imports(self, node: ast.AST) -> Iterator[_Shown]:
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
      names = [f'{node.module}.{alias.name}' for alias in node.names]
    else:
      return
    for name in names:
      top, _, below = name.partition('.')
      is_closed = below and below.partition('.')[0] not in _OPEN_TO_SUBMISSIONS
      if top in ('workloads', 'scoring') or (top in _ROOTS and is_closed):
        yield 'harness', node, f'It imports {name}.'


def _is_workload(node: ast.AST) -> bool:
  name = getattr(node, 'id', '') or getattr(node, 'attr', '')
  return name == 'workload' or name.endswith('_workload')


def _is_call_on_workload(node: ast.AST, *functions: str) -> TypeGuard[ast.Call]:
  """Whether a builtin function is called with the workload as its first argument."""
  if not isinstance(node, ast.Call) or getattr(node.func, 'id', '') not in functions:
    return False
  return any(map(_is_workload, node.args[:1]))


def _asks_identity(node: ast.Attribute) -> bool:
  owner = node.value
  if isinstance(owner, ast.Attribute) and owner.attr in ('definition', '_definition'):
    return node.attr in (*_IDENTITY, 'model', 'data', 'summary')
  return _is_workload(owner) and node.attr in _IDENTITY


def _looked_up(node: ast.AST) -> Iterator[ast.expr]:
  """The figures of a workload that are compared with constants or looked up in a table."""
  if isinstance(node, ast.Compare):
    sides = [node.left, *node.comparators]
    exact = all(isinstance(op, (ast.Eq, ast.NotEq, ast.In, ast.NotIn)) for op in node.ops)
    if exact and any(_is_constant(side) for side in sides):
      yield from filter(_is_figure, sides)
  elif isinstance(node, ast.Subscript) and _is_figure(node.slice):
    yield node.slice
  elif isinstance(node, ast.Match) and _is_figure(node.subject):
    yield node.subject
  elif isinstance(node, ast.Call) and getattr(node.func, 'attr', '') in _LOOK_UPS:
    yield from filter(_is_figure, node.args[:1])


def _is_figure(node: ast.AST) -> bool:
  return isinstance(node, ast.Attribute) and node.attr in _FIGURES and _is_workload(node.value)


def _is_constant(node: ast.AST) -> bool:
  if isinstance(node, ast.Constant):
    return node.value is not None
  if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
    return all(map(_is_constant, node.elts))
  return isinstance(node, ast.Dict)


def _parts_of_names(node: ast.AST) -> Iterator[tuple[ast.expr, str]]:
  """Strings that something is asked to contain or to begin with, and where they stand."""
  if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.In, ast.NotIn)):
    candidates: list[ast.expr] = [node.left]
  elif isinstance(node, ast.Call) and getattr(node.func, 'attr', '') == 'startswith':
    candidates = node.args[:1]
  else:
    return
  for candidate in candidates:
    if isinstance(candidate, ast.Constant) and isinstance(candidate.value, str) and candidate.value:
      yield candidate, candidate.value
