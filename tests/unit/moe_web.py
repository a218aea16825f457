"""Small raw sources of every modality, and the record of a mixture that is prepared from them."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import moe_recordings
import numpy as np
import small_documents

from algorithmic_efficiency.data import records, vocabulary
from workloads.multimodal_moe import web_mixture_data
from workloads.multimodal_moe.data_records import LogMel, WebMixture

DATA = WebMixture(
  row_length=64,
  vocab_size=259,
  image_size=8,
  patch_size=4,
  num_mels=10,
  log_mel=LogMel(sample_rate=8_000, num_fft=256, num_mels=10),
  vocabulary_sha256='',
  captions_per_image=2,
  num_train=(('text', 30), ('caption', 8), ('transcript', 6)),
  num_validation=(('text', 5), ('caption', 3), ('transcript', 2)),
  num_test=(('text', 6), ('caption', 2), ('transcript', 2)),
)
NUM_IMAGES = {'train': 4, 'validation': 3, 'test': 2}
CAPTIONS = ['A red bus.', 'The bus, seen from there.', 'Unused in training.']
PARTS = {
  'train-clean-100': 4,
  'train-clean-360': 2,
  'dev-clean': 2,
  'test-clean': 2,
}


def tokenizer() -> vocabulary.Vocabulary:
  return vocabulary.of_merges([(b't', b'h'), (b'th', b'e')], DATA.separator)


def documents() -> list[str]:
  return small_documents.texts(30)


def write_text(folder: Path) -> Path:
  small_documents.write(folder / 'part.parquet', documents())
  (folder / 'tokenizer.json').write_bytes(tokenizer().to_json())
  return folder


def image(number: int) -> np.ndarray:
  """An image of 12 by 16 pixels."""
  return np.random.default_rng(number).integers(256, size=(12, 16, 3), dtype=np.uint8)


def png(pixels: np.ndarray, kind: str = 'PNG', **options: Any) -> bytes:
  from PIL import Image

  content = io.BytesIO()
  Image.fromarray(pixels).save(content, kind, **options)
  return content.getvalue()


def entries() -> list[dict[str, Any]]:
  return [
    {'file': f'photos/{split}_{number}.png', 'split': split, 'captions': CAPTIONS}
    for split, total in NUM_IMAGES.items()
    for number in range(total)
  ]


def write_images(folder: Path) -> Path:
  (folder / 'photos').mkdir(parents=True)
  for number, entry in enumerate(entries()):
    (folder / entry['file']).write_bytes(png(image(number)))
  (folder / 'captions.json').write_text(json.dumps({'images': entries()}))
  return folder


def write_speech(folder: Path) -> Path:
  for part, total in PARTS.items():
    chapter = folder / 'LibriSpeech' / part / '7' / '11'
    names = [f'7-11-{number:04}' for number in range(total)]
    files = {
      f'{name}.wav': moe_recordings.wav(moe_recordings.samples(number, 'ada', len(part)))
      for number, name in enumerate(names)
    }
    moe_recordings.write(chapter, files)
    lines = [f'{name} THE {part.upper()} SPEAKS' for name in names]
    (chapter / '7-11.trans.txt').write_text('\n'.join(lines) + '\n')
  return folder


def write(folder: Path) -> dict[str, Path]:
  return {
    'text': write_text(folder / 'text'),
    'captions': write_images(folder / 'captions'),
    'speech': write_speech(folder / 'speech'),
  }


def prepare(definition: Any, folder: Path, sources: Any, **changes: Any) -> Path:
  """Prepares a set; `changes` are of the data record."""
  definition = dataclasses.replace(definition, data=dataclasses.replace(definition.data, **changes))
  root = folder / 'web_mixture'
  about = web_mixture_data.about(definition)
  out = records.Writer(root, dataset='web_mixture', about=about, inputs='', key='')
  web_mixture_data.prepare(definition, sources, out, lambda *_: None)
  out.finish()
  return root
