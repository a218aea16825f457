"""Metrics of generated translations.

`bleu` and `chrf` compare with references that are decoded from their own tokens, as AlgoPerf does;
`bleu_raw` with references as they were written. The first is higher where the vocabulary normalizes
text, so only `bleu` is comparable with AlgoPerf's targets. A shipped vocabulary changes no text but
for repeated blanks, which BLEU does not see.
"""

from __future__ import annotations

from pathlib import Path

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.metrics.bleu import Bleu
from algorithmic_efficiency.metrics.chrf import ChrF
from algorithmic_efficiency.metrics.exact_match import ExactMatch
from algorithmic_efficiency.metrics.metric import Metric

from . import texts

_OUTPUTS = ('tokens',)


def metrics(definition: WorkloadDefinition, root: Path | None) -> dict[str, Metric]:
  """Returns the generated metrics of a definition, by name.

  All read `tokens` of `generate`, int32 [batch, length]: a translation goes to its first `EOS_ID`,
  or to its end.

  Args:
    root: folder of the prepared set; None in a smoke run, whose texts are token numbers.

  Raises:
    UserError: the set is missing or damaged, or a package is not installed.
  """
  decode = texts.decoder(definition, root)
  decoded = texts.Decoded(decode)
  found: dict[str, Metric] = {
    'bleu': Bleu(texts=decoded, outputs=_OUTPUTS),
    'chrf': ChrF(texts=decoded, outputs=_OUTPUTS),
    'exact_match': ExactMatch(texts=decoded, outputs=_OUTPUTS),
  }
  if 'bleu_raw' in definition.metrics:
    raw = texts.Decoded(decode) if root is None else texts.Raw(decode, texts.raw_references(root))
    found['bleu_raw'] = Bleu(texts=raw, outputs=_OUTPUTS, name='bleu_raw')
  return {name: one for name, one in found.items() if name in definition.metrics}
