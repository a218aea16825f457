"""The definitions of AlgoPerf's workloads against its published figures, transcribed once more."""

from __future__ import annotations

import pytest

from algorithmic_efficiency.benchmark import registry

# workload: metric, direction, validation target, test target, train, validation, test examples
BASE = """
criteo1tb               loss                   min  0.123735  0.126041  4195197692 83274637 95000000
fastmri                 ssim                   max  0.723653  0.740633  34742      3554     3581
imagenet_resnet         accuracy               max  0.77431   0.6560    1281167    50000    10000
imagenet_vit            accuracy               max  0.77309   0.6519    1281167    50000    10000
librispeech_conformer   wer                    min  0.085884  0.052981  263840     5348     2472
librispeech_deepspeech  wer                    min  0.119936  0.074143  263840     5348     2472
ogbg                    mean_average_precision max  0.28098   0.268729  350343     43793    43793
wmt                     bleu                   max  30.8491   30.7219   5906184    3000     3003
finewebedu_lm           ppl                    min  22.2995   -         8749870    100000   -
cifar                   accuracy               max  0.85      0.85      45000      5000     10000
"""

# workload: eval_train examples, evaluation batch, training batch
BATCHES = """
criteo1tb               83361792  131072  262144
fastmri                 3584      256     32
imagenet_resnet         50176     1024    1024
imagenet_vit            51200     2048    1024
librispeech_conformer   5376      256     256
librispeech_deepspeech  5376      256     256
ogbg                    43793     32768   512
wmt                     3072      128     128
finewebedu_lm           10000     256     64
"""

# workload: (budget, hint, evaluation period) of v0.5, of v0.6, of the A100 generation
BUDGETS = """
criteo1tb               7703  10666  120   7703  10666  120   8915  10666  356
fastmri                 8859  36189  80    4430  18094  80    2745  18094  110
imagenet_resnet         63008 186666 510   66159 195999 510   49918 195999 1996
imagenet_vit            77520 186666 420   69768 167999 420   64292 167999 2571
librispeech_conformer   61068 80000  1440  58015 76000  1440  43680 76000  1747
librispeech_deepspeech  55506 48000  1440  44405 38400  1440  36949 38400  1447
ogbg                    18477 80000  240   12011 52000  240   11303 52000  452
wmt                     48151 133333 840   43336 120000 840   16114 120000 644
finewebedu_lm           -     -      -     -     -      -     31967 72000  2571
"""

VARIANTS = """
criteo1tb_test                               criteo1tb               0.123735  0.126041
criteo1tb_layernorm                          criteo1tb               0.123757  0.126152
criteo1tb_embed_init                         criteo1tb               0.129657  0.131967
criteo1tb_resnet                             criteo1tb               0.12415   0.12648
fastmri_model_size                           fastmri                 0.723559  0.740726
fastmri_tanh                                 fastmri                 0.717840  0.734505
fastmri_layernorm                            fastmri                 0.723284  0.739996
imagenet_resnet_silu                         imagenet_resnet         0.75445   0.6323
imagenet_resnet_gelu                         imagenet_resnet         0.76765   0.6519
imagenet_resnet_large_bn_init                imagenet_resnet         0.76526   0.6423
imagenet_vit_glu                             imagenet_vit            0.75738   0.6359
imagenet_vit_post_ln                         imagenet_vit            0.75312   0.6286
imagenet_vit_map                             imagenet_vit            0.77113   0.6523
librispeech_conformer_attention_temperature  librispeech_conformer   0.109977  0.068065
librispeech_conformer_layernorm              librispeech_conformer   0.09731   0.05996
librispeech_conformer_gelu                   librispeech_conformer   0.094114  0.056629
librispeech_deepspeech_tanh                  librispeech_deepspeech  0.150883  0.098613
librispeech_deepspeech_no_resnet             librispeech_deepspeech  0.131564  0.079297
librispeech_deepspeech_norm_and_spec_aug     librispeech_deepspeech  0.14342   0.090976
ogbg_gelu                                    ogbg                    0.27771   0.262926
ogbg_silu                                    ogbg                    0.282178  0.272144
ogbg_model_size                              ogbg                    0.269446  0.253051
wmt_post_ln                                  wmt                     30.0779   29.8982
wmt_attention_temp                           wmt                     29.3379   29.4143
wmt_glu_tanh                                 wmt                     29.5779   29.0515
"""

HELD_OUT_V05 = {
  'librispeech_conformer_layernorm',
  'imagenet_resnet_large_bn_init',
  'ogbg_model_size',
  'wmt_glu_tanh',
  'fastmri_tanh',
  'criteo1tb_embed_init',
}
EIGHT = {line.split()[0] for line in BATCHES.split('\n') if line} - {'finewebedu_lm'}


def rows(table: str) -> list[list[str]]:
  return [line.split() for line in table.split('\n') if line]


def number(text: str) -> float | None:
  return None if text == '-' else float(text)


@pytest.mark.parametrize('row', rows(BASE), ids=lambda row: row[0])
def test_goal_and_sizes_are_the_published_ones(row):
  name, metric, direction, validation, test, train, num_validation, num_test = row
  definition = registry.workload(name)
  assert (definition.target.metric, definition.target.direction) == (metric, direction)
  assert definition.target.validation == number(validation)
  assert definition.target.test == number(test)
  assert definition.splits.train == number(train)
  assert definition.splits.validation == number(num_validation)
  assert definition.splits.test == number(num_test)
  assert not definition.target.provisional


@pytest.mark.parametrize('row', rows(BATCHES), ids=lambda row: row[0])
def test_batch_sizes_are_the_published_ones(row):
  definition = registry.workload(row[0])
  found = (definition.splits.eval_train, definition.batch_sizes.eval, definition.batch_sizes.train)
  assert found == tuple(int(text) for text in row[1:])


@pytest.mark.parametrize('row', rows(BUDGETS), ids=lambda row: row[0])
def test_budgets_are_the_published_ones(row):
  definition = registry.workload(row[0])
  for suite, (seconds, hint, period) in zip(
    ('algoperf_v05', 'algoperf_v06', 'algoperf_a100'),
    (row[1:4], row[4:7], row[7:10]),
    strict=True,
  ):
    if seconds == '-':
      assert suite not in definition.suites
      continue
    budget = registry.budget(definition, suite)
    assert (budget.max_sec, budget.step_hint, budget.eval_period_sec) == (
      number(seconds),
      number(hint),
      number(period),
    )


@pytest.mark.parametrize('row', rows(VARIANTS), ids=lambda row: row[0])
def test_variants_have_the_published_targets_and_the_rest_of_their_base(row):
  name, base_name, validation, test = row
  definition, base = registry.workload(name), registry.workload(base_name)
  assert definition.base == base_name
  assert definition.target.validation == number(validation)
  assert definition.target.test == number(test)
  assert (definition.target.metric, definition.target.direction) == (
    base.target.metric,
    base.target.direction,
  )
  assert definition.splits == base.splits
  assert {suite: budget.max_sec for suite, budget in definition.suites.items()} == {
    suite: budget.max_sec for suite, budget in base.suites.items()
  }
  assert definition.model != base.model


def test_every_published_variant_is_there_and_no_other():
  published = {row[0] for row in rows(VARIANTS)}
  bases = {row[1] for row in rows(VARIANTS)}
  found = {name for name, one in registry.workloads().items() if one.is_variant}
  assert {name for name in found if registry.workload(name).base in bases} == published


def test_members_of_the_suites():
  assert set(registry.members('algoperf_v05')) == EIGHT | HELD_OUT_V05
  assert set(registry.members('algoperf_v06')) == EIGHT
  assert set(registry.members('algoperf_a100')) == EIGHT | {'finewebedu_lm'}
  assert {'wmt', 'finewebedu_lm', 'imagenet_resnet', 'imagenet_vit'} <= set(
    registry.members('full')
  )


def test_the_target_setting_batch_sizes_of_variants():
  for name in ('imagenet_resnet_silu', 'imagenet_resnet_gelu', 'imagenet_vit_glu'):
    assert registry.workload(name).batch_sizes.train == 512
  assert registry.workload('librispeech_deepspeech_norm_and_spec_aug').batch_sizes.eval == 128


def test_workloads_for_development_are_the_published_ones():
  mnist, cifar = registry.workload('mnist'), registry.workload('cifar')
  for definition, target, budget in (
    (mnist, 0.97, (60, 7_813, 10)),
    (cifar, 0.85, (3_600, 4_883, 600)),
  ):
    assert (definition.target.validation, definition.target.test) == (target, target)
    assert set(definition.suites) == {'algoperf_v05', 'algoperf_v06'}
    for one in definition.suites.values():
      assert (one.max_sec, one.step_hint, one.eval_period_sec) == budget
      assert one.role == 'extra'
  assert (mnist.splits.train, mnist.splits.eval_train, mnist.splits.validation) == (
    50_000,
    10_000,
    10_000,
  )
  assert (mnist.batch_sizes.train, mnist.batch_sizes.eval) == (16, 10_000)
  assert (cifar.splits.train, cifar.splits.eval_train, cifar.splits.validation) == (
    45_000,
    5_120,
    5_000,
  )
  assert cifar.batch_sizes.eval == 1_024


def test_images_are_scaled_as_published():
  """Mean and standard deviation of pixels from 0 to 255; those of MNIST are meant for 0 to 1."""
  scales = {
    'mnist': (0.1307, 0.3081),
    'cifar': ((125.307, 122.950, 113.865), (62.993, 62.089, 66.705)),
    'imagenet_resnet': ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    'imagenet_vit': ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
  }
  for name, (mean, stddev) in scales.items():
    definition = registry.workload(name)
    assert definition.train_mean == pytest.approx(mean, abs=1e-3)
    assert definition.train_stddev == pytest.approx(stddev, abs=1e-3)
    assert isinstance(definition.train_mean, float) == isinstance(mean, float)
  for name in EIGHT - set(scales):
    assert registry.workload(name).train_mean is None
