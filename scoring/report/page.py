"""Renders the page from its data: template, style and script are files beside this one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).resolve().parent


def render(data: dict[str, Any]) -> str:
  """The whole page as text, with everything that it needs inside."""
  import jinja2

  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_FOLDER),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  # No tag or comment in the data may end or change the script element.
  text = json.dumps(data['charts'], separators=(',', ':'), allow_nan=False)
  text = text.replace('&', '\\u0026').replace('<', '\\u003c').replace('>', '\\u003e')
  return environment.get_template('report.html.j2').render(
    **{name: value for name, value in data.items() if name != 'charts'},
    charts=text,
    style=(_FOLDER / 'report.css').read_text(),
    script=(_FOLDER / 'report.js').read_text(),
  )
