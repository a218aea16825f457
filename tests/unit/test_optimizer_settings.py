"""The settings of an optimizer: defaults, limits, files, and hyperparameter points."""

from __future__ import annotations

import json
from collections import namedtuple

import pytest

from algorithmic_efficiency.errors import UserError
from algorithmic_efficiency.optimizers.settings import OPTIONS, Settings
from algorithmic_efficiency.training.options import StepOptions


def settings(**options):
  return Settings.of('torch.optim.SGD', {'lr': 0.1}, options)


def test_everything_is_written_down():
  assert settings().options == {
    'schedule': 'constant',
    'warmup': 0.0,
    'label_smoothing': 0.0,
    'dropout_rate': None,
    'grad_clip': None,
    'micro_batches': 1,
  }
  assert set(settings().options) == set(OPTIONS)
  assert settings(schedule='wsd').options['warmup'] == 0.05
  assert settings(schedule='wsd', warmup=0).options['warmup'] == 0


def test_is_scheduled():
  assert not settings().is_scheduled
  assert settings(warmup=0.1).is_scheduled
  assert settings(schedule='linear', warmup=0).is_scheduled


def test_a_file_gives_the_settings_back(tmp_path):
  file = tmp_path / 'optimizer.json'
  file.write_text(settings(schedule='wsd', grad_clip=1.0).to_json())
  assert Settings.read(file) == settings(schedule='wsd', grad_clip=1.0)
  assert Settings.read(file).step == StepOptions(grad_clip=1.0)


@pytest.mark.parametrize('content', [None, '', '[]', '{"optimizer": "a.b"}', '{"optimizer": 1,'])
def test_a_file_that_is_none(tmp_path, content):
  file = tmp_path / 'optimizer.json'
  if content is not None:
    file.write_text(content)
  with pytest.raises(UserError, match=r'must be JSON with optimizer.*optimizer\.json cannot'):
    Settings.read(file)


def test_a_point_comes_before_the_settings():
  point = namedtuple('Point', 'lr momentum warmup grad_clip')(0.5, 0.9, 0.2, 2.0)
  found = settings(schedule='linear').at(point)
  assert found.hyperparameters == {'lr': 0.5, 'momentum': 0.9}
  assert (found.options['warmup'], found.step.grad_clip) == (0.2, 2.0)
  assert found.options['schedule'] == 'linear'
  assert settings().at(None) == settings()
  assert settings().at(namedtuple('Point', '')()) == settings()


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'schedul': 'wsd'}, "no option 'schedul'. Did you mean 'schedule'"),
    ({'schedule': 'cosine'}, "no schedule 'cosine'. Did you mean 'warmup_cosine'"),
    ({'warmup': 1.0}, 'warmup must be a number of at least 0 and below 1; it is 1.0'),
    ({'warmup': 'long'}, "warmup must be a number .* it is 'long'"),
    ({'warmup': None}, 'warmup must be a number .* it is None'),
    ({'label_smoothing': -0.1}, 'label_smoothing must be a number of at least 0 and below 1'),
    ({'dropout_rate': True}, 'dropout_rate must be a number'),
    ({'grad_clip': float('nan')}, 'grad_clip must be a number of at least 0; it is nan'),
    ({'grad_clip': 0}, 'grad_clip must be positive'),
    ({'micro_batches': 1.5}, 'micro_batches must be a positive whole number'),
  ],
)
def test_a_wrong_option_is_a_clear_mistake(options, message):
  with pytest.raises(UserError, match=message):
    settings(**options)


def test_the_file_is_plain_json():
  content = json.loads(settings().to_json())
  assert list(content) == ['optimizer', 'hyperparameters', 'options']
