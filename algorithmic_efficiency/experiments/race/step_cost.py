"""Measures the cost of a step of each submission, in units of the baseline's step.

The processes of one study, workload and framework are alive together and make steps in turn. The
order is A B A C A, with the baseline A between any two others. So a drift of the host affects all
alike. A second process of the baseline is measured like the others: its cost shows the noise.

The cost is total seconds over total steps, so that periodic work has its price. A burst spans whole
periods, however slow the steps are. They are found from the seconds of 100 single steps, or of 200
where these do not tell. A period that was found in one study holds in the others, as long as files
and host stay. There, a process makes the steps of a period before it is timed: what is compiled for
periodic work alone is compiled then.

A step carries its share of the time to prepare for an evaluation. Each study measures anew, in new
processes, which start and take turns in an order drawn at random. So the noise of a cost differs
from study to study, as that of the steps to target does.

On a CPU, six submissions at most are in memory beside the baseline; on a GPU it is one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from algorithmic_efficiency import backends, errors, seeds
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.experiments.race.periods import MAX_PERIOD, period_of
from algorithmic_efficiency.experiments.race.probe import Probe
from algorithmic_efficiency.experiments.race.trial_estimate import rules_of
from algorithmic_efficiency.launch.slots import Slot
from algorithmic_efficiency.launch.stepper import Stepper, StepperError
from algorithmic_efficiency.results import environment, race_files
from algorithmic_efficiency.results.race_files import Round, StepCost
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.submission import source_hash

NUM_ROUNDS = 7
BURST_SEC = 0.2  # shortest burst of the fastest submission
MIN_STEPS = 8  # steps of a burst, unless they take too long
MAX_EVEN_SEC = 2.0  # longest burst of more than one period
_MIN_ROUNDS = 3
_ENOUGH_SEC = 4.0  # of bursts of each submission, if there are rounds enough
_MOST_SEC = 60.0  # of bursts of each submission, if one is not longer
_TRACE_STEPS = 1 + MAX_PERIOD  # the first does not count, as its batch was not made ahead
_WARM_UP_STEPS = 3  # after the first: a program may be compiled again for its own output
_AGAIN_SHARE = 0.1  # steps before a burst, not timed, as a share of it: another process had the CPU
_MOST_BESIDE = {'cpu': 6, 'gpu': 1}  # submissions in memory beside the baseline

_Start = Callable[..., Stepper]


def measure(
  configs: Sequence[TrialConfig],
  folder: Path,
  slot: Slot,
  canceled: threading.Event | None = None,
  *,
  anew: bool = False,
  to_run: Collection[str] | None = None,
) -> list[str]:
  """Measures the costs that have not been measured yet, and appends them to the file of costs.

  Args:
    configs: trials of one study, workload and framework; one of each submission is enough.
    folder: the folder of the race's runs.
    slot: where its trials run; nothing else should run there meanwhile.
    canceled: once this is set, the function ends with KeyboardInterrupt.
    anew: if true, costs that have been measured are measured again; the last measure counts.
    to_run: submissions with trials that will run here, of which costs on another host tell nothing;
      None for all.

  Returns:
    A message for each submission that could not be measured.
  """
  first: dict[str, TrialConfig] = {}
  for config in configs:
    first.setdefault(config.submission, config)
  if len(first) < 2:
    return []
  one = configs[0]
  suite = registry.suite(one.suite)
  name = suite.baseline_among(first)
  if name is None:
    return [
      f'Steps of {one.workload} ({one.framework}) were not timed, as costs are relative to a '
      f'baseline ({", ".join(suite.baselines)}), and none races or is known here. Plain steps '
      'count.'
    ]
  key = (one.workload, one.framework)
  try:
    hashes = {
      config.submission: source_hash(Path(config.submission_path)) for config in first.values()
    }
  except OSError as error:
    return [f'The steps of {one.workload} ({one.framework}) could not be timed: {error}.']
  earlier = [
    cost
    for cost in race_files.read_costs(folder)
    if (cost.workload, cost.framework) == key and cost.is_of(hashes)
  ]
  of_study = [
    cost for cost in earlier if not anew and (cost.study, cost.baseline) == (one.study, name)
  ]
  missing = _missing(first, name, of_study, first if to_run is None else to_run)
  start = functools.partial(Stepper, slot=slot, canceled=canceled)
  size = num_alive(len(first), one.devices) - 1
  problems: list[str] = []
  for begin in range(0, len(missing), size):
    group = _Group(
      baseline=first[name],
      configs=missing[begin : begin + size],
      start=start,
      hashes=hashes,
      earlier=earlier,
    )
    costs, found = _measured(group)
    race_files.append_costs(folder, costs)
    earlier += costs
    problems += found
  return problems


def measured_here(costs: Iterable[StepCost]) -> list[StepCost]:
  """Returns the costs that were measured on this host, or do not say where."""
  here = functools.cache(environment.host_hash_without_devices)
  return [cost for cost in costs if cost.machine in ('', here(cost.framework))]


def _missing(
  first: Mapping[str, TrialConfig],
  baseline: str,
  costs: Sequence[StepCost],
  to_run: Collection[str],
) -> list[TrialConfig]:
  """Returns the submissions without a cost; where one is measured, the baseline must be, too."""
  anywhere = {cost.submission for cost in costs}
  here = {cost.submission for cost in measured_here(costs)}
  found = [
    config for name, config in first.items() if name not in (here if name in to_run else anywhere)
  ]
  if found and baseline not in here and first[baseline] not in found:
    found.append(first[baseline])
  return found


def expected_sec(probes: Sequence[Probe], num_cpus: float, *, is_first: bool = True) -> float:
  """Estimates the seconds that `measure` takes, if no submission has periodic work.

  Args:
    probes: those of all submissions of a race on one workload; the baseline's is the first.
    num_cpus: CPUs on which processes start side by side.
    is_first: whether the periods of the submissions are still to be found.
  """
  if len(probes) < 2:
    return 0.0
  processes = (*probes, probes[0])  # the baseline's is there twice
  starts = sum(
    one.start_sec + one.first_step_sec + one.first_eval_sec + one.partial_eval_sec
    for one in processes
  )
  paces = [Pace(step_sec=one.step_sec, period=1) for one in probes]
  traces = sum(_TRACE_STEPS * pace.step_sec for pace in paces) if is_first else 0.0
  numbers = num_steps(paces)
  bursts = [
    (number + _num_again(number)) * pace.step_sec
    for number, pace in zip(numbers, paces, strict=True)
  ]
  rounds = num_rounds(paces, numbers)
  return starts / max(1.0, num_cpus) + traces + rounds * (sum(bursts) + len(bursts) * bursts[0])


@dataclass(frozen=True, kw_only=True)
class Pace:
  """How fast a submission makes steps.

  Attributes:
    step_sec: the mean seconds of a step.
    period: the number of steps after which its work repeats.
  """

  step_sec: float
  period: int


def num_steps(paces: Sequence[Pace]) -> list[int]:
  """Chooses the number of steps in a burst of each submission.

  All have about equally many, enough for the fastest, so that the fixed cost of a burst cancels. A
  slow submission, whose burst would take too long, has fewer: beside its steps the fixed cost is
  small. Each has whole periods.
  """
  fastest = min(pace.step_sec for pace in paces)
  enough = max(MIN_STEPS, math.ceil(BURST_SEC / fastest), *(pace.period for pace in paces))
  return [_num_steps(pace, enough) for pace in paces]


def _num_steps(pace: Pace, enough: int) -> int:
  affordable = max(1, int(MAX_EVEN_SEC / pace.step_sec))
  return math.ceil(min(enough, affordable) / pace.period) * pace.period


def num_rounds(paces: Sequence[Pace], numbers: Sequence[int]) -> int:
  """Chooses the number of rounds: fewer where bursts of `numbers` steps take long."""
  longest = max(number * pace.step_sec for pace, number in zip(paces, numbers, strict=True))
  enough = max(_MIN_ROUNDS, min(NUM_ROUNDS, int(_ENOUGH_SEC / longest)))
  return max(1, min(enough, int(_MOST_SEC / longest)))


def _num_again(number: int) -> int:
  return math.ceil(_AGAIN_SHARE * number)


def num_alive(num_submissions: int, devices: Devices) -> int:
  """Gives the number of processes in memory together, the baseline's among them."""
  on_gpu = devices.platform in ('auto', 'gpu') and backends.visible_gpus()
  return 1 + min(num_submissions, _MOST_BESIDE['gpu' if on_gpu else 'cpu'])


@dataclass(frozen=True, kw_only=True)
class _Group:
  """Submissions that are measured together, beside the baseline.

  Attributes:
    start: starts a trial step by step.
    hashes: of the files of all submissions, by name.
    earlier: costs of this workload and framework that were measured before, of these files.
  """

  baseline: TrialConfig
  configs: Sequence[TrialConfig]
  start: _Start
  hashes: Mapping[str, str]
  earlier: Sequence[StepCost]

  def known_paces(self, host: str) -> dict[str, Pace]:
    """The paces of submissions that were measured before on a host, by name."""
    return {
      cost.submission: Pace(step_sec=cost.step_sec, period=cost.period)
      for cost in self.earlier
      if cost.host == host and cost.period is not None
    }


def _measured(group: _Group) -> tuple[list[StepCost], list[str]]:
  """Measures the costs of a group. If one fails, the others are measured again without it."""
  problems: list[str] = []
  while group.configs:
    try:
      return _alternating(group), problems
    except _FailedError as failure:
      config = failure.config
      problems.append(
        f'Steps of {config.submission} on {config.workload} ({config.framework}) were not timed: '
        f'{failure}'
      )
      if config is group.baseline:
        break
      left = [one for one in group.configs if one is not config]
      group = dataclasses.replace(group, configs=left)
  return [], problems


def _alternating(group: _Group) -> list[StepCost]:
  baseline = group.baseline
  with contextlib.ExitStack() as alive:
    everyone = [
      _Bursts(config, group.start(config, num_sharing=1 + len(group.configs)))
      for config in (baseline, *group.configs)
    ]
    random = seeds.generator(
      baseline.study_seed, 'step_cost', baseline.workload, baseline.framework
    )
    for index in random.permutation(len(everyone)):
      everyone[index].begin(alive)
    for each in everyone:
      each.wait()
    for each in everyone:
      each.begin_first_step()
    for each in everyone:
      each.end_first_step()
    unit, *others = everyone
    host = unit.host()
    of_everyone = _paces(everyone, group.known_paces(host))
    numbers = num_steps(of_everyone)
    rounds: list[list[Round]] = [[] for _ in others]
    before = unit.burst(numbers[0])
    for _ in range(num_rounds(of_everyone, numbers)):
      for index in random.permutation(len(others)):
        own, after = others[index].burst(numbers[1 + index]), unit.burst(numbers[0])
        rounds[index].append((before, own, after))
        before = after
    for each in (unit, *others):  # so that all end at the same time
      each.let_go()
  return [
    StepCost(
      submission=config.submission,
      baseline=baseline.submission,
      workload=config.workload,
      framework=config.framework,
      study=config.study,
      host=host,
      machine=environment.host_hash_without_devices(config.framework),
      rounds=tuple(found),
      period=pace.period,
      hashes={name: group.hashes[name] for name in (baseline.submission, config.submission)},
    )
    for config, found, pace in zip(group.configs, rounds, of_everyone[1:], strict=True)
  ]


def _paces(everyone: Sequence[_Bursts], known: Mapping[str, Pace]) -> list[Pace]:
  """Makes the first steps of all, and finds the paces that are not known."""
  paces = dict(known)
  for each in everyone:
    each.warm_up()
    if each.submission in paces:  # a second process of the baseline has the pace of the first
      each.make_a_period(paces[each.submission])
    else:
      paces[each.submission] = each.pace()
  return [paces[each.submission] for each in everyone]


class _FailedError(Exception):
  def __init__(self, config: TrialConfig, reason: str):
    super().__init__(reason)
    self.config = config


class _Bursts:
  """Makes bursts of steps of one trial."""

  def __init__(self, config: TrialConfig, stepper: Stepper):
    self._config = config
    self._stepper = stepper
    period = rules_of(config).eval_period_steps
    assert period is not None, 'steps are raced'
    self._period = period

  def begin(self, alive: contextlib.ExitStack) -> None:
    """Starts the processes, which end with `alive`."""
    alive.enter_context(self._stepper)

  def wait(self) -> None:
    with self._failing():
      self._stepper.wait()

  @property
  def submission(self) -> str:
    return self._config.submission

  def begin_first_step(self) -> None:
    """Begins the first step and the first evaluation, which compile; others do so meanwhile."""
    with self._failing():
      self._stepper.begin(1, max_batches=1)  # as in trials, where the first evaluation comes here

  def end_first_step(self) -> None:
    with self._failing():
      self._stepper.finish()

  def warm_up(self) -> None:
    """Makes some more steps."""
    with self._failing():
      self._stepper.go(_WARM_UP_STEPS)

  def make_a_period(self, pace: Pace) -> None:
    """Makes the steps of a period, in which rare work compiles."""
    if pace.period > 1:
      with self._failing():
        self._stepper.go(pace.period)

  def pace(self) -> Pace:
    """Times each of the steps that follow, until it is known after how many the work repeats."""
    trace: list[float] = []
    period = None
    while period is None:
      with self._failing():
        found = self._stepper.go(_TRACE_STEPS, each_step=True).step_secs
      trace += [math.nan, *found[1:]]
      period = period_of(trace)
    return Pace(step_sec=float(np.nanmean(trace)), period=period)

  def burst(self, number: int) -> float:
    """Makes `number` steps and one preparation for evaluation.

    Returns:
      Seconds of a charged step, with its share of a preparation.
    """
    with self._failing():
      self._stepper.go(_num_again(number))
      interval = self._stepper.go(number)
    return interval.step_sec + interval.buckets['prepare_for_eval'] / self._period

  def let_go(self) -> None:
    self._stepper.let_go()

  def host(self) -> str:
    return self._stepper.environment()['host_hash']

  @contextlib.contextmanager
  def _failing(self) -> Iterator[None]:
    try:
      yield
    except (StepperError, errors.UserError) as error:
      raise _FailedError(self._config, str(error)) from error
