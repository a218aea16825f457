"""An optimizer as a submission: what its text means, the folder that it becomes, and its copies."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from algorithmic_efficiency.benchmark import registry, search_space
from algorithmic_efficiency.cli import main
from algorithmic_efficiency.errors import UserError
from algorithmic_efficiency.optimizers import by_name, dry_run
from algorithmic_efficiency.optimizers.settings import Settings
from algorithmic_efficiency.trial import submission

ADAMW = 'torch.optim.AdamW(lr=1e-3, betas=(0.9, 0.95); schedule=wsd, grad_clip=1.0)'
NAME = 'torch.optim.AdamW-betas_0.9_0.95-lr_0.001-schedule_wsd-grad_clip_1.0'


@pytest.fixture
def dry_runs(monkeypatch, tmp_path) -> list[Settings]:
  """The settings that were tried out; nothing really is, and the cache is a folder of the test."""
  tried: list[Settings] = []

  def dry_run(wanted):
    tried.append(wanted)
    return 'pytorch'

  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  monkeypatch.setattr(by_name, '_dry_run', dry_run)
  monkeypatch.setattr(by_name, '_check_installed', lambda optimizer: None)
  by_name.submission_for.cache_clear()
  return tried


def test_what_is_an_optimizer(tmp_path, monkeypatch):
  assert by_name.is_call('torch.optim.AdamW()')
  assert by_name.is_call(ADAMW)
  for text in ('nadamw', './folder', 'a/b(c).py', './a.b(c)', 'torch.optim.AdamW'):
    assert not by_name.is_call(text)
  assert by_name.is_call(f'a.b(lr={"1" * 300})')  # longer than a file name may be
  monkeypatch.chdir(tmp_path)
  Path('a.b(1)').mkdir()
  assert not by_name.is_call('a.b(1)')


def test_what_a_text_means():
  assert by_name.parse(ADAMW) == Settings.of(
    'torch.optim.AdamW', {'lr': 1e-3, 'betas': [0.9, 0.95]}, {'schedule': 'wsd', 'grad_clip': 1.0}
  )
  assert by_name.parse('a.b()') == Settings.of('a.b', {}, {})
  assert by_name.parse('a.b(; warmup=0.1)') == Settings.of('a.b', {}, {'warmup': 0.1})
  nested = by_name.parse('a.b(inner=c.d(lr=0.1, k=2), lr=3)')
  assert nested.hyperparameters == {'inner': 'c.d(lr=0.1, k=2)', 'lr': 3}


@pytest.mark.parametrize(
  ('name', 'hyperparameters', 'options', 'text'),
  [
    ('a.b', [], [], 'a.b()'),
    ('a.b', ['lr=1'], [], 'a.b(lr=1)'),
    ('a.b', ['lr=1', 'k=(1, 2)'], ['warmup=0.1'], 'a.b(lr=1, k=(1, 2); warmup=0.1)'),
    ('a.b', [], ['warmup=0.1'], 'a.b(; warmup=0.1)'),
    ('a.b(lr=1)', ['k=2'], ['warmup=0.1'], 'a.b(lr=1, k=2; warmup=0.1)'),
    ('a.b(lr=1; schedule=wsd)', [], ['warmup=0.1'], 'a.b(lr=1; schedule=wsd, warmup=0.1)'),
  ],
)
def test_the_text_of_flags(name, hyperparameters, options, text):
  assert by_name.call(name, hyperparameters, options) == text
  by_name.parse(text)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('adamw()', "named as Python imports it, .*; 'adamw' is no such name"),
    ('a.b(lr)', "must be NAME=VALUE; found 'lr'"),
    ('a.b(=1)', "must be NAME=VALUE; found '=1'"),
    ('a.b(lr=)', "must be NAME=VALUE; found 'lr='"),
    ('a.b(lr=1, lr=2)', 'lr is given twice'),
    ('a.b(k=1; warmup=0.1; schedule=wsd)', 'parted by one semicolon'),
    ('a.b(k=(1)', 'Brackets and quotes must be closed'),
    ('a.b(; warmpu=0.1)', "no option 'warmpu'. Did you mean 'warmup'"),
    ('a.b(; schedule=wds)', "no schedule 'wds'. Did you mean 'wsd'"),
  ],
)
def test_a_wrong_text_is_a_clear_mistake(text, message):
  with pytest.raises(UserError, match=message):
    by_name.parse(text)


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('torch.optim.SGD(', "'torch.optim.SGD(' lacks its last bracket"),
    ('torch.optim.SGD(lr=0.1', "'torch.optim.SGD(lr=0.1' lacks its last bracket"),
    ('torch.optim.SGD)', "'torch.optim.SGD)' is no such name"),
    ('.', "'.' is no such name"),
    ('a-b.c', "'a-b.c' is no such name"),
  ],
)
def test_a_name_that_is_none_is_told_as_such(name, message, dry_runs, capsys):
  """Regression: the remedy was to add --framework, and a call that is not closed was taken."""
  assert main(['run', '--workload', 'quick_vision', '--optimizer', name]) == 2
  assert message in capsys.readouterr().err and not dry_runs


def test_a_list_of_entries_may_hold_optimizers():
  text = 'nadamw, sgd=torch.optim.SGD(lr=0.1, momentum=0.9), ./folder'
  assert by_name.split_submissions(text) == [
    'nadamw',
    'sgd=torch.optim.SGD(lr=0.1, momentum=0.9)',
    './folder',
  ]


# The folder.


def test_the_folder_is_a_submission(dry_runs):
  entry = by_name.submission_for(ADAMW)
  assert (entry.name, entry.framework) == (NAME, 'pytorch')
  assert sorted(path.name for path in entry.folder.iterdir()) == [
    'optimizer.json',
    'submission_pytorch.py',
    'tuning_search_space.json',
  ]
  assert Settings.read(entry.folder / 'optimizer.json') == by_name.parse(ADAMW)
  space = search_space.load(entry.folder / 'tuning_search_space.json')
  assert search_space.points(space, 1, seed=0) == [{'lr': 1e-3}]  # a point has scalars alone
  assert submission.locate(ADAMW, 'external', 'pytorch') == (entry.name, entry.file)
  assert submission.locate(str(entry.folder), 'self', 'pytorch') == (entry.name, entry.file)


def test_the_module_reads_the_settings_beside_it(dry_runs):
  pytest.importorskip('torch')
  entry = by_name.submission_for(ADAMW)
  loaded = submission.load(entry.file, 'pytorch')
  assert loaded.prepare_for_eval is not None
  assert loaded.init_optimizer_state.__globals__['SETTINGS'] == by_name.parse(ADAMW)


def test_the_hash_of_a_submission_covers_the_settings(dry_runs):
  one = by_name.submission_for('torch.optim.AdamW(lr=0.1)')
  other = by_name.submission_for('torch.optim.AdamW(lr=0.2)')
  assert one.folder != other.folder
  assert submission.source_hash(one.file) != submission.source_hash(other.file)


def test_an_optimizer_without_hyperparameters_has_one_point_without_values(dry_runs):
  entry = by_name.submission_for('torch.optim.AdamW()')
  space = search_space.load(entry.folder / 'tuning_search_space.json')
  assert search_space.points(space, 1, seed=0) == [{}]
  assert search_space.as_object({}) == ()


def test_what_was_tried_out_once_is_not_tried_again(dry_runs, monkeypatch):
  monkeypatch.setattr(by_name, '_version', lambda package: '1.0')
  first = by_name.submission_for(ADAMW)
  by_name.submission_for.cache_clear()  # as in another process
  assert by_name.submission_for(ADAMW) == first
  assert len(dry_runs) == 1
  monkeypatch.setattr(by_name, '_version', lambda package: '1.1')
  by_name.submission_for.cache_clear()
  assert by_name.submission_for(ADAMW) != first
  assert len(dry_runs) == 2


def test_what_may_have_changed_is_tried_again(dry_runs, monkeypatch):
  monkeypatch.setattr(by_name, '_version', lambda package: None)  # a file of the user's
  by_name.submission_for(ADAMW)
  by_name.submission_for.cache_clear()
  by_name.submission_for(ADAMW)
  assert len(dry_runs) == 2


def test_an_optimizer_of_the_other_framework(dry_runs):
  with pytest.raises(UserError, match='trains models in pytorch, not in jax; leave out --frame'):
    submission.locate(ADAMW, 'external', 'jax')


def test_a_cache_that_cannot_be_written(dry_runs, monkeypatch, tmp_path):
  (tmp_path / 'file').write_text('')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
  with pytest.raises(UserError, match=r'torch\.optim\.AdamW'):
    by_name.submission_for(ADAMW)


@pytest.mark.parametrize(
  ('text', 'parts'),
  [
    ('trch.optim.AdamW()', ["package 'trch'", "Did you mean 'torch'", 'pip install trch']),
    ('no_such_package.Best()', ['not installed', 'pip install no_such_package']),
    ('__import__.Best()', ['which can be the name of no package. Correct the import.']),
    ('__main__.Best()', ['which can be the name of no package. Correct the import.']),
  ],
)
def test_a_package_that_is_not_there(text, parts):
  with pytest.raises(UserError) as caught:
    by_name.submission_for(text)
  for part in parts:
    assert part in str(caught.value)


@pytest.mark.parametrize('place', ['mine_.py', 'mine_/best.py'])
@pytest.mark.parametrize('is_found_here', [False, True])  # as in a notebook
def test_a_module_in_the_current_folder_is_not_told_to_be_installed(
  place, is_found_here, cache, monkeypatch, tmp_path
):
  (tmp_path / place).parent.mkdir(exist_ok=True)
  (tmp_path / place).write_text('')
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr('sys.path', [*filter(None, sys.path), *([''] if is_found_here else [])])
  with pytest.raises(UserError, match=r"'mine_', which is in .*PYTHONPATH=\.") as caught:
    by_name.submission_for('mine_.best.Best()')
  assert 'pip install' not in str(caught.value)


@pytest.mark.parametrize('place', ['mine_.py', 'mine_/parts/best.py'])
def test_an_edited_optimizer_is_another_submission(place, dry_runs, monkeypatch, tmp_path):
  source = tmp_path / 'sources' / place
  source.parent.mkdir(parents=True)
  source.write_text('one')
  monkeypatch.syspath_prepend(str(tmp_path / 'sources'))
  one = by_name.submission_for('mine_.Best()')
  by_name.keep(one.file, tmp_path)
  by_name.submission_for.cache_clear()
  assert by_name.submission_for('mine_.Best()') == one
  source.write_text('other')
  by_name.submission_for.cache_clear()
  other = by_name.submission_for('mine_.Best()')
  assert submission.source_hash(one.file) != submission.source_hash(other.file)
  assert Settings.read(other.folder / 'optimizer.json') == by_name.parse('mine_.Best()')
  with pytest.raises(UserError, match=r'began with another mine_\.Best'):
    by_name.check_resumable(other.file, tmp_path)


@pytest.mark.parametrize(
  ('arguments', 'label'),
  [
    ('', 'a.B'),
    ('lr=1e-3', 'a.B-lr_0.001'),
    ('lr=0.001; schedule=constant, warmup=0', 'a.B-lr_0.001'),  # the same settings
    ('lr=1e-2', 'a.B-lr_0.01'),
    ('wd=0, lr=-1', 'a.B-lr_-1-wd_0'),
    ('; schedule=linear', 'a.B-schedule_linear'),
    ('; schedule=linear, warmup=0.1, grad_clip=1', 'a.B-schedule_linear-warmup_0.1-grad_clip_1'),
    ('on=True, base=torch.optim.SGD', 'a.B-base_torch.optim.SGD-on_true'),
  ],
)
def test_the_name_of_a_submission_says_what_the_optimizer_was_given(arguments, label):
  assert by_name.parse(f'a.B({arguments})').label == label


def test_a_long_name_ends_in_a_hash():
  names = {by_name.parse(f'a.B({"x" * 200}={value})').label for value in (1, 2)}
  assert len(names) == 2 and all(len(name) < 140 for name in names)


def test_runs_of_the_former_name_are_found(dry_runs, tmp_path):
  entry = by_name.submission_for(ADAMW)
  assert by_name.former_name(entry.file, tmp_path) is None
  trial = tmp_path / 'torch.optim.AdamW' / 'study_1' / 'quick_vision_pytorch' / 'trial_1'
  kept = trial / 'torch.optim.AdamW' / 'optimizer.json'
  kept.parent.mkdir(parents=True)
  kept.write_bytes((entry.folder / 'optimizer.json').read_bytes())
  with pytest.warns(FutureWarning, match=NAME):
    assert by_name.former_name(entry.file, tmp_path) == 'torch.optim.AdamW'
  other = by_name.submission_for('torch.optim.AdamW(lr=1e-2)')
  assert by_name.former_name(other.file, tmp_path) is None


# Copies in trial folders.


def test_the_copy_in_a_trial_folder_is_the_same_submission(dry_runs, tmp_path):
  entry = by_name.submission_for(ADAMW)
  (entry.folder / '__pycache__').mkdir()
  for _ in range(2):  # a resumed trial has it already
    by_name.keep(entry.file, tmp_path)
  copy = tmp_path / NAME
  assert sorted(path.name for path in copy.iterdir()) == [
    'optimizer.json',
    'submission_pytorch.py',
    'tuning_search_space.json',
  ]
  file = copy / 'submission_pytorch.py'
  assert submission.source_hash(file) == submission.source_hash(entry.file)
  assert submission.locate(str(copy), 'external', 'pytorch') == (entry.name, file)


def test_other_submissions_are_not_copied(tmp_path):
  entry = registry.submission('nadamw', 'self')
  by_name.keep(entry.folder / 'submission_jax.py', tmp_path)
  assert not list(tmp_path.iterdir())


def test_a_trial_resumes_with_the_settings_it_began_with(dry_runs, tmp_path):
  entry = by_name.submission_for(ADAMW)
  by_name.check_resumable(entry.file, tmp_path)
  by_name.keep(entry.file, tmp_path)
  by_name.check_resumable(entry.file, tmp_path)
  other = by_name.submission_for('torch.optim.AdamW(lr=1e-2)')
  with pytest.raises(UserError, match=r'began with another torch'):
    by_name.check_resumable(other.file, tmp_path)


# The flags.


RUN = ['run', '--workload', 'quick_vision', '--smoke']


@pytest.mark.parametrize(
  ('flags', 'parts'),
  [
    ([], ['one of --submission, --submission_path and --optimizer']),
    (['--optimizer', 'a.b', '--submission', 'nadamw'], ['one of --submission']),
    (['--submission', 'nadamw'], ['add --framework, with one of jax, pytorch']),
    (['--submission', 'nadamw', '--hparam', 'lr=1'], ['--hparam belongs to --optimizer']),
    (['--submission', 'nadamw', '--warmup', '0.1'], ['--warmup belongs to --optimizer']),
    (['--optimizer', 'AdamW'], ["'AdamW' is no such name"]),
    (['--optimizer', 'trch.optim.AdamW'], ['pip install trch']),
    (['--optimizer', 'a.b', '--hparam', 'lr'], ["NAME=VALUE; found 'lr'"]),
    (['--optimizer', 'a.b', '--schedule', 'cosine'], ["Did you mean 'warmup_cosine'"]),
    (['--optimizer', 'a.b', '--warmup', '2'], ['warmup must be a number of at least 0 and below']),
  ],
)
def test_wrong_flags(flags, parts, capsys, tmp_path):
  assert main([*RUN, '--experiment_dir', str(tmp_path / 'runs'), *flags]) == 2
  error = capsys.readouterr().err
  assert len(error.strip().splitlines()) == 1, error
  for part in parts:
    assert part in error
  assert not (tmp_path / 'runs').exists()


def test_the_framework_follows_and_a_contradiction_is_refused(dry_runs, capsys):
  optimizer = ['--optimizer', 'torch.optim.AdamW', '--framework', 'jax']
  pytest.importorskip('flax')
  assert main([*RUN, *optimizer]) == 2
  assert 'trains models in pytorch, not in jax' in capsys.readouterr().err
  assert [one.optimizer for one in dry_runs] == ['torch.optim.AdamW']


# The dry run itself, in a process of its own or, where that makes no difference, in this one.


@pytest.fixture
def cache(monkeypatch, tmp_path):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  by_name.submission_for.cache_clear()


@pytest.fixture
def here(cache, monkeypatch):
  """Dry runs happen in this process."""

  def run(wanted: Settings) -> str:
    answer = dry_run.answer(wanted)
    if 'error' in answer:
      raise UserError(answer['error'])
    return answer['framework']

  monkeypatch.setattr(by_name, '_dry_run', run)


@pytest.mark.slow
def test_a_torch_optimizer_is_tried_out(cache):
  pytest.importorskip('torch')
  assert by_name.submission_for('torch.optim.SGD(lr=0.1)').framework == 'pytorch'


def test_a_torch_optimizer_that_cannot_run_here(here):
  pytest.importorskip('torch')
  with pytest.raises(UserError, match='SparseAdam cannot run here: it takes sparse gradients'):
    by_name.submission_for('torch.optim.SparseAdam()')


@pytest.mark.slow
def test_an_optax_optimizer_is_tried_out(cache):
  pytest.importorskip('optax')
  assert by_name.submission_for('optax.sgd(learning_rate=0.1)').framework == 'jax'


@pytest.mark.parametrize(
  ('source', 'message'),
  [
    ('class Best: ...', 'mine.Best is a class without that interface'),
    ('import no_such_package', "mine.Best needs the package 'no_such_package'"),
    ('def Best(', "cannot be imported: SyntaxError: '\\(' .* Correct that file"),
    (
      'import optax\ndef Best(): raise RuntimeError("CUDA is not there")',
      'needs a GPU, and this machine has',
    ),
    ('def Best(): raise RuntimeError("called")', 'does not use optax, and was not called'),
    (
      'import torch\nclass Best(torch.optim.Optimizer):\n  def __init__(self, params):\n'
      "    assert all('use_muon' in group for group in params)",
      r'list of parameters of a model \(RuntimeError: Tensor\.__contains__ .* algoeff new submis',
    ),
    (
      'import torch\nclass MuonBase(torch.optim.Optimizer): ...\n'
      'MuonBase.__module__ = "pytorch_optimizer"\nclass Best(MuonBase): ...',
      r'cannot run here: it takes groups of parameters .* use torch\.optim\.Muon',
    ),
    ('import sys; sys.exit(3)', r'with sys\.exit\(3\)\. Take that call out'),
    ('raise ValueError("\\x1b[1m\\x07")', r'ValueError: \\x1b\[1m\\x07$'),
  ],
)
def test_a_module_that_cannot_be_used(source, message, here, monkeypatch, tmp_path):
  pytest.importorskip('torch' if 'torch' in source else 'optax')
  (tmp_path / 'mine.py').write_text(source)
  monkeypatch.syspath_prepend(str(tmp_path))
  monkeypatch.setitem(sys.modules, 'mine', None)  # so that it is forgotten in the end
  del sys.modules['mine']
  with pytest.raises(UserError, match=message):
    by_name.submission_for('mine.Best()')


@pytest.mark.parametrize(
  ('source', 'message'),
  [
    ('import os; os._exit(3)', 'ended the process of its dry run'),
    ('import os; os._exit(0)', 'exit code 0: it printed nothing. Look at .* "import mine"'),
    ('print("hello")\nclass Best: ...', 'is a class without that interface'),
  ],
)
def test_a_module_that_ends_or_writes(source, message, cache, monkeypatch, tmp_path):
  (tmp_path / 'mine.py').write_text(source)
  monkeypatch.setenv('PYTHONPATH', str(tmp_path))
  monkeypatch.syspath_prepend(str(tmp_path))
  with pytest.raises(UserError, match=message):
    by_name.submission_for('mine.Best()')


@pytest.mark.parametrize(
  'text',
  [
    'os.system(command="touch called")',
    'os.mkdir(path="called")',
    'pathlib.Path.touch(self="called")',
    'shutil.copyfile(src="/dev/null", dst="called")',
    'subprocess.check_output(args="touch called", shell=True)',
    'optax.adamw(learning_rate=0.1, mask=os.system(command="touch called"))',
    'optax.adamw(learning_rate=os.mkdir(path="called"))',
  ],
)
def test_what_is_no_optimizer_is_not_called(text, here, monkeypatch, tmp_path):
  """Regression: the command was run, and then it was said that it is no optimizer."""
  if text.startswith('optax'):
    pytest.importorskip('optax')
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match=r'was not called|is a class without that interface'):
    by_name.submission_for(text)
  assert not (tmp_path / 'called').exists()


def test_an_optimizer_that_never_returns(cache, monkeypatch, tmp_path):
  (tmp_path / 'endless.py').write_text('import time; time.sleep(60)')
  monkeypatch.setenv('PYTHONPATH', str(tmp_path))
  monkeypatch.syspath_prepend(str(tmp_path))
  monkeypatch.setattr(by_name, '_DRY_RUN_TIMEOUT_SEC', 0.5)
  with pytest.raises(UserError, match=r'did not finish its dry run within 0\.5 s'):
    by_name.submission_for('endless.Best()')


def test_the_search_space_is_json(dry_runs):
  entry = by_name.submission_for('a.b(k=True, m=text, n=none)')
  space = json.loads((entry.folder / 'tuning_search_space.json').read_text())
  assert space == [{'k': True, 'm': 'text', 'n': None}]
