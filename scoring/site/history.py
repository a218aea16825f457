"""What was published when, and what has changed: the states of a board, from the first one on."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field

from algorithmic_efficiency import errors
from scoring.outputs import number_of
from scoring.report.chart_parts import short_number
from scoring.workload_facts import target_text


@dataclass(frozen=True, kw_only=True)
class Standing:
  """A submission on a board: its place, and its times by workload; None for a miss."""

  submission: str
  rank: int
  score: float
  time_to_target: Mapping[str, float | None]
  source_hash: str | None = None


@dataclass(frozen=True, kw_only=True)
class Aim:
  """The target of a workload."""

  metric: str
  direction: str
  target: float

  def __str__(self) -> str:
    return target_text(self.metric, self.direction, self.target)


@dataclass(frozen=True, kw_only=True)
class Scores:
  """The part of `leaderboard.json` by which boards are compared; best first."""

  suite: str
  ruleset: str
  leaderboard: tuple[Standing, ...]
  workloads: Mapping[str, Aim]

  def by_name(self) -> dict[str, Standing]:
    return {one.submission: one for one in self.leaderboard}


@dataclass(frozen=True, kw_only=True)
class Publication:
  """A state of a board that was published, and when: ISO 8601, UTC."""

  date: str
  scores: Scores


@dataclass(frozen=True, kw_only=True)
class History:
  """All states that were published, in their order.

  `files` are the paths of the site that holds this history.
  """

  publications: tuple[Publication, ...]
  files: tuple[str, ...] = field(default=(), compare=False)

  @property
  def last(self) -> Publication:
    return self.publications[-1]


def published(earlier: History | None, scores: Scores, date: datetime.datetime) -> History:
  """The history with another state; the same history if nothing has changed.

  Raises:
    UserError: it is the history of another board, or goes on after `date`.
  """
  text = date.astimezone(datetime.UTC).isoformat(timespec='seconds').replace('+00:00', 'Z')
  new = Publication(date=text, scores=scores)
  if earlier is None:
    return History(publications=(new,))
  last = earlier.last
  if (last.scores.suite, last.scores.ruleset) != (scores.suite, scores.ruleset):
    raise errors.UserError(
      f'A site is of one suite and ruleset. This one is of {last.scores.suite}, '
      f'{last.scores.ruleset} tuning, and the board of {scores.suite}, {scores.ruleset} tuning. '
      'Give another folder with --output.'
    )
  if last.scores == scores:
    return earlier
  if text <= last.date:
    raise errors.UserError(
      f'A board is published after the one before it, which was on {last.date}; --date is {text}.'
    )
  return History(publications=(*earlier.publications, new))


def changes_of(history: History, unit: str, place: int = -1) -> tuple[str, ...]:
  """What a publication changed, in sentences; the first one says what it holds."""
  place %= len(history.publications)
  after = history.publications[place].scores
  if not place:
    return (_first(after),)
  before = history.publications[place - 1].scores
  return (
    *_comings(before, after),
    *_moves(before, after),
    *_results(before, after),
    *_workloads(before, after),
    *_records(before, after, unit),
  )


def _first(scores: Scores) -> str:
  leader = scores.leaderboard[0]
  submissions = number_of(len(scores.leaderboard), 'submission', 'submissions')
  workloads = number_of(len(scores.workloads), 'workload', 'workloads')
  lead = f'{leader.submission} leads with a score of {leader.score:.3f}.'
  if not leader.score:
    lead = 'No submission scores on any of them.'
  return f'The board is published, with {submissions} on {workloads}. {lead}'


def _comings(before: Scores, after: Scores) -> list[str]:
  old, new = before.by_name(), after.by_name()
  texts = [
    f'{name} joins at place {one.rank} of {len(new)}, with a score of {one.score:.3f}.'
    for name, one in new.items()
    if name not in old
  ]
  return texts + [f'{name} leaves the board.' for name in old if name not in new]


def _moves(before: Scores, after: Scores) -> list[str]:
  """Who overtook whom, among those that stay: who joins above moves nobody."""
  old, new = before.by_name(), after.by_name()
  stay = [name for name in new if name in old]

  def order(found: Mapping[str, Standing]) -> dict[str, int]:
    scores = {name: found[name].score for name in stay}
    return {name: sum(other > scores[name] for other in scores.values()) for name in stay}

  places = order(old), order(new)
  return [
    f'{name} moves from place {old[name].rank} to {new[name].rank}, with a score of '
    f'{new[name].score:.3f}.'
    for name in stay
    if places[0][name] != places[1][name]
  ]


def _results(before: Scores, after: Scores) -> list[str]:
  """Whose code or times are others; workloads that are new say so themselves."""
  old, texts = before.by_name(), []
  for name, one in after.by_name().items():
    if name not in old:
      continue
    if one.source_hash != old[name].source_hash:
      texts.append(f'{name} has other code.')
    times = old[name].time_to_target
    found = [w for w, time in one.time_to_target.items() if w in times and time != times[w]]
    if found:
      texts.append(f'{name} has other times on {", ".join(found)}.')
  return texts


def _workloads(before: Scores, after: Scores) -> list[str]:
  old, new = before.workloads, after.workloads
  texts = [f'{name} is a new workload.' for name in new if name not in old]
  texts += [f'{name} is no workload of the board any more.' for name in old if name not in new]
  return texts + [
    f'The target of {name} is {aim}; it was {old[name]}.'
    for name, aim in new.items()
    if name in old and aim != old[name]
  ]


def _records(before: Scores, after: Scores, unit: str) -> list[str]:
  """Who is the fastest on a workload and was not."""
  texts: dict[str, list[str]] = {}
  for workload in after.workloads:
    was, now = fastest(before, workload), fastest(after, workload)
    if now is None or now == was or workload not in before.workloads:
      continue
    time = f'{short_number(now[0])} {unit}'
    former = 'before: none' if was is None else f'before: {was[1]}, {short_number(was[0])}'
    texts.setdefault(now[1], []).append(f'{workload} ({time}; {former})')
  return [f'{name} is the fastest on {", ".join(found)}.' for name, found in texts.items()]


def fastest(scores: Scores, workload: str) -> tuple[float, str] | None:
  """The shortest time to the target of a workload and whose it is; None if nobody reaches it."""
  times = [
    (time, one.submission)
    for one in scores.leaderboard
    if (time := one.time_to_target.get(workload)) is not None
  ]
  return min(times, default=None)


def since(history: History, submission: str, stated: str = '') -> str:
  """The day of a submission: the one that it states, else that of its first publication.

  A day after the first publication of this code is a mistake, and does not count.
  """
  now = history.last.scores.by_name()[submission]
  first = next(
    one.date[:10]
    for one in history.publications
    for found in one.scores.leaderboard
    if (found.submission, found.source_hash) == (submission, now.source_hash)
  )
  try:
    return min(datetime.date.fromisoformat(stated).isoformat(), first)
  except ValueError:
    return first
