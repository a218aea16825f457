"""Parses arguments from text (values, names and calls) and checks them against a signature."""

from __future__ import annotations

import ast
import difflib
import inspect
import json
import pkgutil
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.compat import packages

_CALL = re.compile(r'[A-Za-z_][\w.]*\(.*\)', re.DOTALL)
_RESULT = re.compile(r'GradientTransformation|Schedule')
_WRITTEN_WITH = ('optax', 'jax')
_LIBRARIES = ('jax', 'jaxlib', 'flax', 'torch')  # which use JAX, and have no optimizers of optax
_NAME = re.compile(r'[A-Za-z_]\w*(\.[A-Za-z_]\w*)+')


def is_name(text: str) -> bool:
  """Returns True if `text` has the form of an import name with a dot in it."""
  return _NAME.fullmatch(text) is not None


def is_call(text: str) -> bool:
  """Returns True if `text` has the form of a call, such as 'optax.sgd(learning_rate=0.1)'."""
  return _CALL.fullmatch(text) is not None


def load(name: str) -> Callable[..., Any]:
  """Imports the class or function of an import name.

  Raises:
    UserError: it cannot be imported, does not exist, or is neither a class nor a function.
  """
  found = _imported(name)
  if not callable(found) or inspect.ismodule(found):
    raise errors.UserError(
      f'An optimizer is a class or a function; {name} is a {type(found).__name__}.'
    )
  return found


def _imported(name: str) -> Any:
  try:
    return pkgutil.resolve_name(name)
  except AttributeError as error:
    owner: Any = error.obj
    word = str(error.name)
    choices = [other for other in dir(owner) if not other.startswith('_')]
    near = [other for other in choices if other.lower() == word.lower()]
    near = near or difflib.get_close_matches(word, choices, n=3, cutoff=0.5)
    hint = f' Did you mean {" or ".join(map(repr, near))}?' if near else ''
    raise errors.UserError(
      f'{name} cannot be imported: there is no {word!r} in {owner.__name__}.{hint}'
    ) from None


def has_torch_interface(found: Any) -> bool:
  """True for a class that derives from torch.optim.Optimizer, which need not be imported here."""
  kinds = inspect.getmro(found) if inspect.isclass(found) else ()
  return ('torch.optim.optimizer', 'Optimizer') in [
    (kind.__module__, kind.__name__) for kind in kinds
  ]


def is_of_optax(found: Any) -> bool:
  """True for a function that may give an optimizer or a schedule of optax.

  It is one of optax's own, says so in its annotation, or is written with optax or JAX. Nothing is
  called to find out: any import name may be given, `os.system` among them.
  """
  function = inspect.unwrap(getattr(found, 'func', found))  # behind partial, jit and decorators
  if not inspect.isfunction(function):
    return False
  package = function.__module__.partition('.')[0]
  if package == 'optax' or _RESULT.search(str(function.__annotations__.get('return', ''))):
    return True
  used = {*map(_package, function.__globals__.values()), *function.__code__.co_names}
  return package not in _LIBRARIES and not used.isdisjoint(_WRITTEN_WITH)


def _package(value: Any) -> str:
  name = value.__name__ if inspect.ismodule(value) else getattr(value, '__module__', None)
  return name.partition('.')[0] if isinstance(name, str) else ''


def absent_error(name: str, package: str, hint: str = '') -> errors.UserError:
  """Returns the error for a missing package, with what to do.

  A module in the current folder is not found by the processes of trials. The error then names
  PYTHONPATH, because an index may have another package of that name.

  Args:
    name: import name that needs the package.
    package: top-level name of the package.
    hint: empty, or a space and a sentence with a suggestion.
  """
  if Path(f'{package}.py').is_file() or Path(package).is_dir():
    return errors.UserError(
      f'{name} needs {package!r}, which is in the current folder. Add that folder to PYTHONPATH: '
      'PYTHONPATH=. algoeff ...'
    )
  if not_installable := packages.why_not_installable(package):
    return errors.UserError(f'{name} needs {package!r}, {not_installable}. Correct the import.')
  return errors.UserError(
    f'{name} needs the package {package!r}, which is not installed.{hint} Install it with: '
    f'{packages.install_command(package)}'
  )


def parse_value(text: str) -> Any:
  """Returns the value of a text: a number, bool, None or list; else the text itself."""
  folded = {'true': True, 'false': False, 'none': None, 'null': None}
  if text.strip().lower() in folded:
    return folded[text.strip().lower()]
  try:
    value = ast.literal_eval(text.strip())
    json.dumps(value, allow_nan=False)  # 1e400 is no number either
  except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
    return text.strip()
  return list(value) if isinstance(value, tuple) else value


def bind(
  function: Callable[..., Any], name: str, values: Mapping[str, Any], *, given: int = 0
) -> dict[str, Any]:
  """Returns keyword arguments, checked against a signature, with import names loaded.

  Args:
    function: class or function to call.
    name: its name in messages.
    values: arguments as JSON values, by name.
    given: number of first parameters that the caller supplies.

  Raises:
    UserError: an argument is unknown, missing or of the wrong type.
  """
  parameters = {
    key: parameter
    for key, parameter in list(inspect.signature(function).parameters.items())[given:]
    if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
  }
  for key in values:
    if key not in parameters:
      raise _unknown(name, key, parameters)
  missing = [
    key
    for key, parameter in parameters.items()
    if parameter.default is parameter.empty and key not in values
  ]
  if missing:
    raise errors.UserError(
      f'{name} needs a value for {", ".join(missing)}; give it with --hparam {missing[0]}=VALUE.'
    )
  return {key: _value(f'{key} of {name}', value, parameters[key]) for key, value in values.items()}


def _unknown(name: str, key: str, choices: Collection[str]) -> errors.UserError:
  other = {'lr': 'learning_rate', 'learning_rate': 'lr'}.get(key, '')
  if other in choices:
    return errors.UserError(f'{name} calls its learning rate {other}, not {key}.')
  return errors.unknown(f'hyperparameter of {name}', key, choices)


_KINDS = {
  'flag': 'true or false',
  'whole': 'a whole number',
  'number': 'a number',
  'text': 'a text',
  'sequence': 'a sequence, as in (0.9, 0.99)',
  'object': 'an object by its import name, or a call of one',
}
_WORDS = {
  'bool': 'flag',
  'int': 'whole',
  'float': 'number',
  'complex': 'number',
  'ArrayLike': 'number',
  'Scalar': 'number',
  'ScalarOrSchedule': 'number',
  'str': 'text',
  'Literal': 'text',
  'tuple': 'sequence',
  'Tuple': 'sequence',
  'list': 'sequence',
  'List': 'sequence',
  'Sequence': 'sequence',
  'Iterable': 'sequence',
  'Callable': 'object',
  'GradientTransformation': 'object',
  'Optimizer': 'object',
  'type': 'object',
}
_ANYTHING = frozenset(_KINDS)
_SAY_NOTHING = {'Union', 'Optional', 'None', 'NoneType', 'typing', 'collections', 'abc', 'types'}


def _value(what: str, value: Any, parameter: inspect.Parameter) -> Any:
  """Converts a JSON value to the type that a parameter expects."""
  kinds, optional = _expected(parameter)
  if value is None and (optional or kinds == _ANYTHING):
    return None
  if isinstance(value, str) and 'object' in kinds and (is_call(value) or is_name(value)):
    return called(value)
  kind = _kind(value)
  if kind == 'whole' and 'number' in kinds:
    kind = 'number'
  if kind == 'text' and 'number' not in kinds and 'object' in kinds:
    return value  # the name of a type, such as bfloat16
  if kind not in kinds:
    shown = kinds - {'whole'} if 'number' in kinds else kinds
    expected = ', or '.join(text for name, text in _KINDS.items() if name in shown)
    raise errors.UserError(f'{what} must be {expected}; it is {value!r}.')
  if isinstance(value, list) and isinstance(parameter.default, tuple):
    if len(value) != len(parameter.default):
      raise errors.UserError(
        f'{what} must have {len(parameter.default)} values, as in {parameter.default}; it is '
        f'{tuple(value)}.'
      )
    return tuple(value)
  return value


def _kind(value: Any) -> str:
  if isinstance(value, bool):
    return 'flag'
  if isinstance(value, (int, float)):
    return 'whole' if isinstance(value, int) else 'number'
  return 'text' if isinstance(value, str) else 'sequence' if isinstance(value, list) else 'object'


def _expected(parameter: inspect.Parameter) -> tuple[frozenset[str], bool]:
  """Returns the types of value that a parameter accepts, and whether it accepts None.

  A default is more reliable than an annotation: optax annotates some bools as numbers.
  """
  default = parameter.default
  words = annotation_words(parameter)
  optional = default is None or bool({'None', 'NoneType', 'Optional'} & words)
  by_words = set(_ANYTHING)  # for an annotation that we do not understand
  if words & _WORDS.keys():
    by_words = {_WORDS.get(word, 'object') for word in words - _SAY_NOTHING}
  if isinstance(default, bool):
    return frozenset({'flag'}), optional
  if isinstance(default, (int, float)):
    kinds = {'whole'} if by_words == {'whole'} else {'number'}
    return frozenset(kinds | ({'object'} & by_words if words else set())), optional
  if isinstance(default, str):
    return frozenset({'text'}), optional
  if type(default) in (tuple, list):
    return frozenset({'sequence'}), optional
  if default is None or default is parameter.empty:
    return frozenset(by_words - {'flag'} if 'number' in by_words else by_words), optional
  return frozenset({'object'}), optional


def annotation_words(parameter: inspect.Parameter) -> set[str]:
  annotation = parameter.annotation
  if annotation is parameter.empty:
    return set()
  text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
  if re.search(r'\bAny\b', text):
    return set()
  return set(re.findall(r'[A-Za-z_]\w*', text))


def called(text: str) -> Any:
  """Returns the object of an import name, or the result of a call: `optax.sgd(learning_rate=0.1)`.

  Raises:
    UserError: it cannot be imported or called with these arguments.
  """
  if not is_call(text):
    return _imported(text)
  name, _, inside = text.partition('(')
  function = load(name)
  values = {}
  for part in filter(None, split(inside[:-1], ',')):
    key, equals, value = part.partition('=')
    if not equals:
      raise errors.UserError(f'Arguments must have names, as in lr=0.1; {text} has {part!r}.')
    values[key.strip()] = parse_value(value)
  if not (has_torch_interface(function) or is_of_optax(function)):
    raise errors.UserError(
      'A value may be a call of an optimizer, or of a function of optax or that uses it; '
      f'{name} is neither, and was not called.'
    )
  return function(**bind(function, name, values))


def split(text: str, separator: str) -> list[str]:
  """Splits a text at separators outside of brackets and quotes.

  Raises:
    UserError: a bracket or a quote is not closed.
  """
  parts, depth, quote, start = [], 0, '', 0
  for index, letter in enumerate(text):
    if quote:
      quote = '' if letter == quote else quote
    elif letter in '\'"':
      quote = letter
    elif letter in '([{':
      depth += 1
    elif letter in ')]}':
      depth -= 1
    elif letter == separator and depth == 0:
      parts.append(text[start:index].strip())
      start = index + 1
    if depth < 0:
      break
  if depth or quote:
    raise errors.UserError(f'Brackets and quotes must be closed; those of {text!r} are not.')
  return [*parts, text[start:].strip()]
