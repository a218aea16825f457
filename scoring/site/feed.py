"""The feed of changes: Atom, RFC 4287."""

from __future__ import annotations

import html
import uuid
from xml.etree import ElementTree

from algorithmic_efficiency import errors
from scoring.site.history import History, changes_of

FILE = 'feed.xml'
_NAMESPACE = 'http://www.w3.org/2005/Atom'


def write(history: History, *, title: str, unit: str, page: str, url: str) -> bytes:
  """An entry a publication, the newest first.

  Args:
    page: path of the page of changes, where each publication has its date as a name.
    url: address of the site, with which links begin; '' makes links that are relative to the feed.
  """
  first, last = history.publications[0], history.last
  own = uuid.uuid5(uuid.NAMESPACE_URL, f'{first.scores.suite} {first.scores.ruleset} {first.date}')
  feed = ElementTree.Element('feed', {'xmlns': _NAMESPACE})
  _add(feed, 'id', own.urn)
  _add(feed, 'title', f'{title}: changes of the leaderboard')
  _add(feed, 'updated', last.date)
  _add(ElementTree.SubElement(feed, 'author'), 'name', title)
  _add(feed, 'link', rel='self', type='application/atom+xml', href=url + FILE)
  _add(feed, 'link', rel='alternate', type='text/html', href=url + page)
  for place, one in reversed([*enumerate(history.publications)]):
    texts = changes_of(history, unit, place)
    entry = ElementTree.SubElement(feed, 'entry')
    _add(entry, 'id', uuid.uuid5(own, one.date).urn)
    _add(entry, 'title', texts[0] if len(texts) == 1 else f'{texts[0]} And {len(texts) - 1} more.')
    _add(entry, 'updated', one.date)
    _add(entry, 'link', rel='alternate', type='text/html', href=f'{url}{page}#{anchor(one.date)}')
    items = ''.join(f'<li>{html.escape(text)}</li>' for text in texts)
    _add(entry, 'content', f'<ul>{items}</ul>', type='html')
  ElementTree.indent(feed)
  return ElementTree.tostring(feed, encoding='utf-8', xml_declaration=True)


def anchor(date: str) -> str:
  """The name of a publication in the page of changes."""
  return f'p{date.replace(":", "").replace("-", "").lower()}'


def _add(parent: ElementTree.Element, name: str, text: str = '', **attributes: str) -> None:
  ElementTree.SubElement(parent, name, attributes).text = errors.printable(text) or None
