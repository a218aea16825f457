"""Makes a folder to start from: a submission that runs as it is.

Example: algoeff new submission my_optimizer --framework jax
"""

from __future__ import annotations

import argparse
import re
import shlex
import string
from pathlib import Path

from algorithmic_efficiency import errors, registry
from algorithmic_efficiency.definition import WorkloadDefinition

SUMMARY = 'make a folder for a submission of your own'

TEMPLATE = registry.HOME / 'submissions' / '_template'
_FRAMEWORKS = {'jax': 'JAX', 'pytorch': 'PyTorch'}
_SEARCH_SPACE = 'tuning_search_space.json'
_CONTENTS = {
  'submission_jax.py': 'the algorithm in JAX',
  'submission_pytorch.py': 'the algorithm in PyTorch',
  _SEARCH_SPACE: 'the hyperparameters that trials draw, by range or by choice',
  'submission_info.yml': 'who made it, and for which ruleset',
  'README.md': 'this page',
}
_NAME = re.compile(r'[a-z][a-z0-9_]*')


def arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('kind', choices=('submission',), help='what to make')
  parser.add_argument('name', metavar='NAME', help='lower case letters, digits and underscores')
  parser.add_argument('--framework', choices=(*_FRAMEWORKS, 'both'), default='both')
  parser.add_argument('--ruleset', choices=('external', 'self'), default='external')
  parser.add_argument('--out', default='.', metavar='DIR', help='where the folder is made; here')


def run(args: argparse.Namespace) -> int:
  folder = Path(args.out).expanduser() / args.name
  frameworks = tuple(_FRAMEWORKS) if args.framework == 'both' else (args.framework,)
  files = make_submission(folder, frameworks=frameworks, ruleset=args.ruleset)
  print(f'{folder} holds {", ".join(files)}. To see it train:')
  print(f'  {_command(folder, frameworks[0], args.ruleset)}')
  return 0


def make_submission(folder: Path, *, frameworks: tuple[str, ...], ruleset: str) -> list[str]:
  """Fills a new folder from the template and returns the names of its files.

  Raises:
    UserError: the name is not one for a submission, the folder exists, or it cannot be made.
  """
  if not _NAME.fullmatch(folder.name):
    raise errors.UserError(
      'The name of a submission must begin with a lower case letter and hold lower case letters, '
      f'digits and underscores; {folder.name!r} does not.'
    )
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
  try:
    folder.mkdir(parents=True)
    for name in files:
      template = string.Template((TEMPLATE / name).read_text(encoding='utf-8'))
      (folder / name).write_text(template.substitute(words), encoding='utf-8')
  except FileExistsError:
    raise errors.UserError(f'{folder} exists; choose another name, or another --out.') from None
  except OSError as error:
    raise errors.UserError(f'{folder} cannot be made: {error.strerror}.') from None
  return files


def _command(folder: Path, framework: str, ruleset: str) -> str:
  """A command that trains the submission where nothing has to be prepared."""
  workload = _example_workload(framework)
  words = ['algoeff', 'run', '--workload', workload.name, '--framework', framework]
  words += ['--submission', f'{folder}' if '/' in str(folder) else f'./{folder}']
  words += ['--ruleset', ruleset]
  words += ['--allow_provisional'] if workload.goal.provisional else []
  return shlex.join(words)


def _example_workload(framework: str) -> WorkloadDefinition:
  """The first workload that runs; those whose data are embedded come before the others."""
  runnable = [
    definition
    for definition in registry.workloads().values()
    if registry.is_runnable(definition, framework) and not definition.is_variant
  ]
  return min(runnable, key=lambda definition: not definition.embedded)
