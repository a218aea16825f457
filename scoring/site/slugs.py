"""Names of files for names of any kind, the same whatever else is on a board."""

from __future__ import annotations

import hashlib
import re

_PLAIN = re.compile(r'[a-z0-9][a-z0-9_-]{0,63}')
_OTHER = re.compile(r'[^a-z0-9_]+')
_LONGEST = 40  # characters that are kept of another name


def slug(name: str) -> str:
  """A plain name itself; for others what is plain of it, and a hash that tells them apart.

  Plain names are of small letters, digits, _ and -. So a slug is a file name everywhere, on file
  systems that know no case, too, and no two names share one.
  """
  if _PLAIN.fullmatch(name):
    return name
  kept = _OTHER.sub('-', name.lower()).strip('-_')[:_LONGEST].rstrip('-_')
  digits = hashlib.sha256(name.encode()).hexdigest()[:8]
  return f'{kept}-{digits}' if kept else digits
