"""The official places of parallel text, and the names of its files."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from algorithmic_efficiency import errors
from algorithmic_efficiency.data import fetch, records
from algorithmic_efficiency.data.prepare import Progress

_MULTI30K = 'https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw/'


@dataclass(frozen=True, kw_only=True)
class Place:
  """Where a data set comes from.

  Attributes:
    about: origin and license, and bytes of the prepared set.
    names: names of the files of each split, without languages.
    downloads: files to fetch.
    members: files to take from the downloads that are archives, by the name of the archive.
  """

  about: records.About
  names: Mapping[str, Sequence[str]]
  downloads: Sequence[fetch.Download]
  members: Mapping[str, Sequence[str]]


def _multi30k(name: str, num_bytes: int, sha256: str) -> fetch.Download:
  return fetch.Download(
    name=f'{name}.gz', urls=(f'{_MULTI30K}{name}.gz',), sha256=sha256, num_bytes=num_bytes
  )


def _archive(url: str, num_bytes: int, sha256: str) -> fetch.Download:
  return fetch.Download(
    name=url.rpartition('/')[2], urls=(url,), sha256=sha256, num_bytes=num_bytes
  )


_PLACES: Mapping[str, Place] = {
  'multi30k': Place(
    about=records.About(
      origin='Multi30k, task 1, D. Elliott et al. 2016: captions of Flickr30k and translations',
      licence='research use',
      num_bytes=2_855_162,
    ),
    names={'train': ['train'], 'validation': ['val'], 'test': ['test_2016_flickr']},
    downloads=(
      _multi30k(
        'train.en', 568_929, 'd79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f'
      ),
      _multi30k(
        'train.de', 637_044, '726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6'
      ),
      _multi30k(
        'val.en', 21_650, '14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28'
      ),
      _multi30k(
        'val.de', 24_681, 'f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a'
      ),
      _multi30k(
        'test_2016_flickr.en',
        21_077,
        '611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9',
      ),
      _multi30k(
        'test_2016_flickr.de',
        22_890,
        '9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8',
      ),
    ),
    members={},
  ),
  'wmt': Place(
    about=records.About(
      origin='WMT17 translation task, German and English; held out: newstest 2013 and 2014',
      licence='research use',
      num_bytes=780_000_000,
    ),
    names={
      'train': [
        'europarl-v7.de-en',
        'commoncrawl.de-en',
        'news-commentary-v12.de-en',
        'rapid2016.de-en',
      ],
      'validation': ['newstest2013'],
      'test': ['newstest2014-deen'],
    },
    downloads=(
      _archive(
        'http://www.statmt.org/wmt13/training-parallel-europarl-v7.tgz',
        657_632_379,
        '0224c7c710c8a063dfd893b0cc0830202d61f4c75c17eb8e31836103d27d96e7',
      ),
      _archive(
        'http://www.statmt.org/wmt13/training-parallel-commoncrawl.tgz',
        918_311_367,
        'c7a74e2ea01ac6c920123108627e35278d4ccb5701e15428ffa34de86fa3a9e5',
      ),
      _archive(
        'http://data.statmt.org/wmt17/translation-task/training-parallel-nc-v12.tgz',
        168_591_139,
        '2b45f30ef1d550d302fd17dd3a5cbe19134ccc4c2cf50c2dae534aee600101a2',
      ),
      _archive(
        'http://data.statmt.org/wmt18/translation-task/rapid2016.tgz',
        161_050_516,
        '41557dd5d8f0ed3a6d98bce3b798b1a9d3b68361eb99d902329ddbb943a6b55a',
      ),
      _archive(
        'http://data.statmt.org/wmt19/translation-task/dev.tgz',
        38_654_961,
        '7a7deccf82ebb05ba508dba5eb21356492224e8f630ec4f992132b029b4b25e7',
      ),
    ),
    members={
      'training-parallel-europarl-v7.tgz': ('europarl-v7.de-en.de', 'europarl-v7.de-en.en'),
      'training-parallel-commoncrawl.tgz': ('commoncrawl.de-en.de', 'commoncrawl.de-en.en'),
      'training-parallel-nc-v12.tgz': (
        'news-commentary-v12.de-en.de',
        'news-commentary-v12.de-en.en',
      ),
      'rapid2016.tgz': ('rapid2016.de-en.de', 'rapid2016.de-en.en'),
      'dev.tgz': (
        *('newstest2013.de', 'newstest2013.en'),
        *('newstest2014-deen-src.de.sgm', 'newstest2014-deen-ref.en.sgm'),
      ),
    },
  ),
}


def about(dataset: str) -> records.About:
  """Returns origin and license of a data set."""
  if dataset in _PLACES:
    return _PLACES[dataset].about
  return records.About(origin='given text', licence='not known', num_bytes=0)


def names(dataset: str) -> Mapping[str, Sequence[str]]:
  """Returns the official names of the files of each split; none of a set without a place."""
  return _PLACES[dataset].names if dataset in _PLACES else {}


def fetched(dataset: str, out: records.Writer, progress: Progress) -> Path:
  """Fetches the files of a data set, unpacks its archives, and returns their folder.

  Raises:
    UserError: the set has no official place, or a file could not be fetched or unpacked.
  """
  if dataset not in _PLACES:
    raise errors.UserError(
      f'The text of {dataset} cannot be downloaded: name the folder of its files with --source.'
    )
  place, folder = _PLACES[dataset], out.downloads
  for download in place.downloads:
    wanted = place.members.get(download.name, ())
    if wanted and all((folder / member).is_file() for member in wanted):
      continue
    path = fetch.fetch(download, folder, progress)
    if wanted:
      _unpack(path, wanted, progress)
      path.unlink()
  return folder


def _unpack(path: Path, wanted: Sequence[str], progress: Progress) -> None:
  """Takes files out of an archive, into its folder.

  Raises:
    UserError: one is missing, or the archive is damaged.
  """
  progress(f'unpack {path.name}', 0, None)
  found = set()
  try:
    with tarfile.open(path) as archive:
      for member in archive:
        name = member.name.rpartition('/')[2]
        content = archive.extractfile(member) if name in wanted else None
        if content is not None:
          partial = path.with_name(f'{name}.part')
          with partial.open('wb') as file:
            while block := content.read(1 << 20):
              file.write(block)
          partial.rename(path.with_name(name))
          found.add(name)
  except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
    raise errors.UserError(f'{path} cannot be unpacked ({error}); repeat the command.') from None
  missing = sorted(set(wanted) - found)
  if missing:
    raise errors.UserError(f'{path} must hold {", ".join(missing)}; it does not.')
