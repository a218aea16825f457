"""Makes the folder of a new submission, or the file of a new suite. Both run as they are.

Example: algoeff new submission my_optimizer --framework jax
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import shutil
import string
from collections.abc import Iterator, Mapping
from pathlib import Path

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry, suite_file
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.cli import _flags

SUMMARY = 'make a submission or a suite of your own'

TEMPLATE = registry.HOME / 'submissions' / '_template'
SUITE_TEMPLATE = Path(__file__).with_name('suite_template.toml')
_FRAMEWORKS = {'jax': 'JAX', 'pytorch': 'PyTorch'}
_SEARCH_SPACE = 'tuning_search_space.json'
_CONTENTS = {
  'submission_jax.py': 'the algorithm in JAX',
  'submission_pytorch.py': 'the algorithm in PyTorch',
  _SEARCH_SPACE: 'the hyperparameters that trials draw, by range or by choice',
  'submission_info.yml': 'who made it, and for which ruleset',
  'README.md': 'this page',
}


def arguments(parser: _flags.Parser) -> None:
  parser.add_argument('kind', choices=('submission', 'suite'), help='what to make')
  parser.add_argument(
    'name', metavar='NAME', help='its name, of lower case letters, digits and underscores'
  )
  _flags.add(parser, 'framework', choices=(*_FRAMEWORKS, 'both'), default='both')
  _flags.add(parser, 'ruleset')
  parser.add(
    'out',
    group=_flags.OUTPUT,
    type=_flags.folder,
    default='.',
    metavar='DIR',
    help='make it in DIR',
  )


def run(args: argparse.Namespace) -> int:
  frameworks = tuple(_FRAMEWORKS) if args.framework == 'both' else (args.framework,)
  if args.kind == 'suite':
    file = Path(args.out).expanduser() / f'{args.name}.toml'
    command = make_suite(file, framework=frameworks[0], ruleset=args.ruleset)
    print(f'{file} is a suite of one workload; its comments say what else it may hold. To race it:')
    print(f'  {command}')
    return 0
  folder = Path(args.out).expanduser() / args.name
  files = make_submission(folder, frameworks=frameworks, ruleset=args.ruleset)
  print(f'{folder} holds {", ".join(files)}. To see it train:')
  print(f'  {_command(folder, frameworks[0], args.ruleset)}')
  return 0


def make_submission(folder: Path, *, frameworks: tuple[str, ...], ruleset: str) -> list[str]:
  """Fills a new folder from the template and returns the names of its files.

  Raises:
    UserError: the name is not one for a submission, the folder exists, or it cannot be made.
  """
  _check_name('submission', folder.name)
  files = [registry.SUBMISSION_FILES[framework] for framework in frameworks]
  files += [_SEARCH_SPACE] if ruleset == 'external' else []
  files += ['submission_info.yml', 'README.md']
  words = {
    'title': folder.name.replace('_', ' ').capitalize(),
    'folder': f'{registry.RULESET_FOLDERS[ruleset]}/{folder.name}',  # type: ignore[index]
    'ruleset': ruleset,
    'frameworks': ', '.join(_FRAMEWORKS[framework] for framework in frameworks),
    'files': '\n'.join(f'| `{name}` | {_CONTENTS[name]} |' for name in files),
    'command': _command(folder, frameworks[0], ruleset),
  }
  with _told(folder):
    folder.mkdir(parents=True)
    try:
      for name in files:
        (folder / name).write_text(_filled(TEMPLATE / name, words), encoding='utf-8')
    except OSError:
      shutil.rmtree(folder, ignore_errors=True)
      raise
  return files


def make_suite(file: Path, *, framework: str, ruleset: str) -> str:
  """Writes a suite from the template and returns a command that races it.

  Raises:
    UserError: the name is not one for a suite, the file exists, or it cannot be written.
  """
  _check_name('suite', file.stem)
  if file.stem in registry.suites():
    raise errors.UserError(f'There is a suite {file.stem!r} already; choose another name.')
  workload = _example_workload(framework)
  like, budget = next(item for item in workload.suites.items() if item[1].max_steps is not None)
  entries = [name for kind, name in registry.submissions() if kind == ruleset]
  flags = ['--suite', str(file), '--submissions', ','.join(entries[:2])]
  flags += ['--ruleset', ruleset, '--frameworks', framework]
  flags += ['--allow_provisional'] if workload.target.provisional else []
  command = shlex.join(['algoeff', 'bench', *flags])
  words = {
    'command': command,
    'file': shlex.quote(str(file)),
    'name': file.stem,
    'title': file.stem.replace('_', ' ').capitalize(),
    'workload': workload.name,
    'like': like,
    'max_steps': budget.max_steps,
    'step_hint': budget.step_hint,
    'eval_period_steps': budget.eval_period_steps,
    'batch_size': workload.batch_sizes.train,
    'eval_batch_size': workload.batch_sizes.eval,
    'validation': workload.target.validation,
    'test': workload.target.test,
  }
  with _told(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(exist_ok=False)
    try:
      file.write_text(_filled(SUITE_TEMPLATE, words), encoding='utf-8')
    except OSError:
      file.unlink()
      raise
  return command


def _check_name(kind: str, name: str) -> None:
  if not suite_file.NAME.fullmatch(name):
    raise errors.UserError(
      f'The name of a {kind} must begin with a lower case letter and hold lower case letters, '
      f'digits and underscores; {name!r} does not.'
    )
  if kind == 'submission':
    from algorithmic_efficiency.launch.request import check_scored_name

    check_scored_name(name, 'Choose another name.')


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
  """In the block, a path that is taken or cannot be made is the user's mistake."""
  try:
    yield
  except FileExistsError:
    raise errors.UserError(f'{path} exists; choose another name, or another --out.') from None
  except OSError as error:
    raise errors.UserError(f'{path} cannot be made: {error.strerror}.') from None


def _filled(template: Path, words: Mapping[str, object]) -> str:
  return string.Template(template.read_text(encoding='utf-8')).substitute(words)


def _command(folder: Path, framework: str, ruleset: str) -> str:
  """A command that trains the submission where nothing has to be prepared."""
  workload = _example_workload(framework)
  words = ['algoeff', 'run', '--workload', workload.name, '--framework', framework]
  words += ['--submission', f'{folder}' if '/' in str(folder) else f'./{folder}']
  words += ['--ruleset', ruleset]
  words += ['--allow_provisional'] if workload.target.provisional else []
  return shlex.join(words)


def _example_workload(framework: str) -> WorkloadDefinition:
  """The first workload that runs; those whose data are bundled come before the others."""
  runnable = [
    definition
    for definition in registry.workloads().values()
    if registry.is_runnable(definition, framework) and not definition.is_variant
  ]
  return min(runnable, key=lambda definition: not definition.bundled)
