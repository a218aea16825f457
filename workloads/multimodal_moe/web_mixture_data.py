"""Text, images with captions and recordings with transcripts, in packed rows; see `questions.py`.

A prepared set has its vocabulary in `tokenizer.json`, and these fields:

- `text-<split>/tokens`: uint16 of varying length, a piece of a document; the separator ends it.
- `captions-<split>/tokens`: uint16 of varying length, a caption and the separator.
- `captions-<split>/image`: int32 [captions], the number of its image.
- `images-<split>/patches`: uint8 [images, patches, patch_dim].
- `speech-<split>/tokens`: uint16 of varying length, a transcript and the separator.
- `speech-<split>/frames`: float32 of varying length, frames [frames, mels] of a recording.

Its `settings.json` has the settings of the frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.data import records
from algorithmic_efficiency.data.mixture import Mixture
from algorithmic_efficiency.data.packing import Packed
from algorithmic_efficiency.data.pipeline import Batch
from algorithmic_efficiency.data.prepare import Progress, Source
from algorithmic_efficiency.data.sources import Transform

from . import prepared_settings, questions, web_preparation, web_sources
from .data_records import WEB_KINDS

_MEAN_TEXT_TOKENS, _MEAN_RECORDING_SEC = 700, 12.3


def about(definition: WorkloadDefinition) -> records.About:
  """Returns origins and licenses of the sources, and about how many bytes they take prepared.

  Raises:
    UserError: the mixture names a source that does not exist.
  """
  data = definition.data
  _check_kinds(definition)
  of_splits = web_preparation.sizes(data).values()
  by_kind = {kind: sum(one[kind] for one in of_splits) for kind in WEB_KINDS}
  frame_bytes = 4 * data.num_mels / data.log_mel.hop_sec
  num_images = sum(
    one['caption'] // web_preparation.num_captions(data, split)
    for split, one in web_preparation.sizes(data).items()
  )
  return records.About(
    origin='FineWeb-Edu, A. Lozhkov et al. 2024; COCO, T.-Y. Lin et al. 2014, with captions; '
    'LibriSpeech, V. Panayotov et al. 2015',
    licence='ODC-By 1.0; CC BY 4.0 for captions, terms of Flickr for images; CC BY 4.0',
    num_bytes=round(
      by_kind['text'] * 2 * _MEAN_TEXT_TOKENS
      + num_images * data.num_patches * data.patch_dim
      + by_kind['transcript'] * _MEAN_RECORDING_SEC * frame_bytes
    ),
    sources=web_preparation.SOURCES,
  )


def prepare(
  definition: WorkloadDefinition, source: Source, out: records.Writer, progress: Progress
) -> None:
  """Writes tokens, patches and log-mel frames of the three sources.

  Args:
    source: `text`, a folder with parquet files that have a column `text`, and with the files of
      the tokenizer. `captions`, a folder with `captions.json`, or the builder `coco_captions` of
      TensorFlow Datasets. `speech`, the folder of LibriSpeech.

  Raises:
    UserError: a source is missing, damaged, of another form or of another size than in the
      definition. An example is longer than a row, or a package is missing.
  """
  if not isinstance(source, Mapping):
    flags = ' '.join(f'--source {name}=FOLDER' for name in web_preparation.SOURCES)
    raise errors.UserError(
      f'The data set {definition.dataset} cannot be downloaded: name its sources with {flags}.'
    )
  web_preparation.fill(definition.data, source, out, progress)


def source(definition: WorkloadDefinition, root: Path, split: str) -> Mixture | Packed:
  """Returns packed rows of the three sources for training, and their examples for another split.

  Raises:
    UserError: the data is missing or damaged, or a source or weight is wrong.
  """
  data, name = definition.data, f'{definition.name}, {split}'
  _check_kinds(definition)
  prepared_settings.check(records.open_prepared(root), web_preparation.settings(data))
  sources = {kind: web_sources.opened(data, root, split, kind) for kind in data.kinds}
  mixture = Mixture(sources, dict(data.weights), name=name)
  if split != 'train':
    return mixture
  lengths = {kind: one.lengths for kind, one in sources.items()}
  return Packed(mixture, lengths, data.row_length, questions.together)


def _check_kinds(definition: WorkloadDefinition) -> None:
  """
  Raises:
    UserError: the mixture names a source that does not exist.
  """
  for kind in definition.data.kinds:
    if kind not in WEB_KINDS:
      raise errors.unknown(f'source of {definition.name}', kind, WEB_KINDS)


def transform(definition: WorkloadDefinition, train: bool) -> Transform:
  """Returns the function that leaves an example as it is."""
  return questions.unchanged


def collate(definition: WorkloadDefinition) -> questions.Rows:
  """Returns what makes a batch of rows."""
  return questions.Rows(definition.data)


def fake_batch(definition: WorkloadDefinition, batch_size: int, seed: int) -> Batch:
  """Returns a training batch of generated examples of every kind, which depend on the seed."""
  return questions.fake_batch(
    definition.data, web_sources.generated(definition.data, seed), batch_size
  )


def fake_eval_batch(definition: WorkloadDefinition, batch_size: int, seed: int) -> Batch:
  """Returns an evaluation batch of generated examples of every kind."""
  return questions.fake_eval_batch(
    definition.data, web_sources.generated(definition.data, seed), batch_size
  )
