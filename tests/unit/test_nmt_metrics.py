"""Metrics of translations: references from tokens and as written, and those of sacrebleu."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import small_translation as small

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.data import streams
from workloads.nmt import metrics, texts, vocabulary
from workloads.nmt.data_records import EOS_ID

pytest.importorskip('sacrebleu')
pytest.importorskip('sentencepiece')

METRICS = ('accuracy', 'loss', 'bleu', 'bleu_raw', 'chrf')


def test_a_sentence_goes_to_its_first_end_or_to_the_end_of_the_row():
  rows = np.array([[5, 6, EOS_ID, 7, EOS_ID, 0], [5, 0, 6, 7, 0, 0], [0] * 6, [EOS_ID] + [9] * 5])
  assert texts.sentences(rows) == [[5, 6], [5, 0, 6, 7], [], []]


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  folder = tmp_path_factory.mktemp('metrics')
  source = small.write_all(folder / 'source', names={**small.NAMES, 'test': 'test'})
  # The vocabulary of wmt normalizes text: a ligature and blanks do not come back from tokens.
  text = (source / 'val.en').read_text().replace('field', 'ﬁeld').replace('red ', 'red  ')
  (source / 'val.en').write_text(text)
  return small.prepare(definition(), folder, source)


def definition(**changes):
  one = replace(small.wmt(), metrics=METRICS)
  return replace(one, target=replace(one.target, metric='bleu'), **changes)


def computed(prepared, hypotheses, split='validation', batch_size=4, num_ranks=1):
  """The metrics of texts, evaluated in batches on so many ranks."""
  one = definition()
  data = registry.module_of(one, 'data')
  found = metrics.metrics(one, prepared.root)
  model = vocabulary.of_set(
    prepared.root, prepared.manifest['files'][vocabulary.FILE]['sha256'], one.data
  )
  states = {name: [] for name in found}
  for rank in range(num_ranks):
    own = dict.fromkeys(found)
    shard = (rank, num_ranks)
    for batch in streams.eval_stream(data, one, prepared.root, split, batch_size, shard=shard):
      rows = batch['weights'].any(axis=1)
      batch = {key: value[rows] for key, value in batch.items()}
      tokens = np.zeros((rows.sum(), 90), np.int32)
      first = 0 if split == 'validation' else small.SPLITS.validation
      for row, pair in zip(tokens, batch['pair'] - first, strict=True):
        (encoded,) = model.encode([hypotheses[pair]])
        row[: len(encoded)] = encoded
      if len(tokens):
        own = {
          name: metric.update(own[name], {'tokens': tokens}, batch)
          for name, metric in found.items()
        }
    for name, state in own.items():
      states[name] += [] if state is None else [state]
  return {
    name: value
    for name, metric in found.items()
    for name, value in metric.compute({}, metric.merge(states[name])).items()
  }


def raw(prepared, split):
  field = prepared.field(f'{split}/target_text')
  return [field[number].tobytes().decode() for number in range(len(field))]


def changed(sentences):
  """Hypotheses that are partly right."""
  return [
    ' '.join(words[:-1] if place % 3 else [*words, 'dog'])
    for place, words in enumerate(sentence.split() for sentence in sentences)
  ]


class TestReferences:
  def test_those_from_tokens_are_normalized_and_raw_ones_are_not(self, prepared):
    """A perfect translation has BLEU 100 against references from their own tokens, as AlgoPerf."""
    texts = raw(prepared, 'validation')
    assert any('ﬁ' in text for text in texts)
    found = computed(prepared, texts)
    assert found['bleu'] == pytest.approx(100) and found['chrf'] == pytest.approx(100)
    assert 50 < found['bleu_raw'] < 99

  def test_without_normalization_they_are_the_same(self, prepared):
    hypotheses = changed(raw(prepared, 'test'))
    found = computed(prepared, hypotheses, 'test')
    assert 20 < found['bleu'] < 99
    assert found['bleu'] == found['bleu_raw']

  @pytest.mark.parametrize('batch_size', [2, 6, 64])
  @pytest.mark.parametrize('num_ranks', [1, 2])
  def test_they_do_not_depend_on_batches_and_ranks(self, prepared, batch_size, num_ranks):
    hypotheses = changed(raw(prepared, 'test'))
    found = computed(prepared, hypotheses, 'test', batch_size, num_ranks)
    assert found == pytest.approx(computed(prepared, hypotheses, 'test', 1), abs=1e-9)


def test_bleu_and_chrf_are_those_of_the_command_line_of_sacrebleu(prepared, tmp_path):
  """13a tokens, mixed case, exponential smoothing, no effective order: what it does by default."""
  references = raw(prepared, 'test')
  hypotheses = changed(references)
  small.write(tmp_path, references, 'references')
  small.write(tmp_path, hypotheses, 'hypotheses')
  command = [sys.executable, '-m', 'sacrebleu', 'references', '-i', 'hypotheses']
  options = ['-m', 'bleu', 'chrf', '--format', 'json', '-w', '8']
  done = subprocess.run([*command, *options], cwd=tmp_path, check=True, capture_output=True)
  expected = {one['name']: one for one in json.loads(done.stdout)}
  assert '|case:mixed|eff:no|tok:13a|smooth:exp|' in expected['BLEU']['signature']
  found = computed(prepared, hypotheses, 'test')
  assert found['bleu'] == pytest.approx(expected['BLEU']['score'], abs=1e-7)
  assert found['chrf'] == pytest.approx(expected['chrF2']['score'], abs=1e-7)


class TestSmokeRuns:
  def test_texts_are_token_numbers(self):
    found = metrics.metrics(definition(), None)
    batch = {'targets': np.array([[5, 6, 7, 8, 9, EOS_ID, 0]]), 'weights': np.ones((1, 7))}
    for name in ('bleu', 'bleu_raw', 'chrf'):
      state = found[name].update(None, {'tokens': batch['targets']}, batch)
      assert found[name].compute({}, state) == {name: pytest.approx(100)}

  def test_only_the_metrics_of_the_definition_are_given(self):
    one = replace(definition(), metrics=('bleu', 'loss'), generation=None)
    assert metrics.metrics(one, None).keys() == {'bleu'}
