"""What a user says of the jobs of SLURM."""

from __future__ import annotations

from dataclasses import dataclass

from algorithmic_efficiency import errors
from algorithmic_efficiency import option_fields as options
from algorithmic_efficiency.option_fields import option

GROUP = 'SLURM, with --launcher slurm'


@dataclass(frozen=True, kw_only=True)
class SlurmOptions:
  """The resources of a trial, and what becomes of its job.

  Raises:
    UserError: the value of an option is wrong.
  """

  partition: str | None = option(
    None,
    group=GROUP,
    flag='slurm_partition',
    metavar='NAME',
    help='submit to this partition',
    unset="the cluster's own",
  )
  account: str | None = option(
    None,
    group=GROUP,
    flag='slurm_account',
    metavar='NAME',
    help='charge this account',
    unset="the user's own",
  )
  time_min: int | None = option(
    None,
    group=GROUP,
    flag='slurm_time',
    metavar='MIN',
    help='time limit of a trial in minutes; one that needs longer continues in another job',
    unset='twice the estimate of `algoeff plan`, else that of the partition',
  )
  num_gpus: int | None = option(
    None,
    group=GROUP,
    flag='slurm_gpus',
    metavar='N',
    help='GPUs of a trial on each of its nodes',
    unset='none',
  )
  num_cpus: int | None = option(
    None,
    group=GROUP,
    flag='slurm_cpus',
    metavar='N',
    help='CPUs of a trial on each of its nodes',
    unset="--num_threads for each process, else one, or the cluster's rule for GPUs",
  )
  num_nodes: int = option(
    1, group=GROUP, flag='slurm_nodes', metavar='N', help='nodes of one trial, through srun'
  )
  sbatch: tuple[str, ...] = option(
    (),
    group=GROUP,
    flag='slurm_option',
    metavar='NAME=VALUE',
    is_repeated=True,
    help='pass another option to sbatch, such as qos=high or exclusive (repeatable)',
  )
  container: str | None = option(
    None,
    group=GROUP,
    metavar='IMAGE',
    help='run the jobs in this image of Apptainer',
    unset='in the environment of this command',
  )
  trials_per_job: int = option(
    1, group=GROUP, metavar='N', help='trials that a job runs one after the other'
  )
  detach: bool = option(
    False,
    group=GROUP,
    help='submit the jobs and leave them running; the same command picks them up again',
  )

  def __post_init__(self) -> None:
    options.check(self)
    for text in self.sbatch:
      name = text.partition('=')[0]
      if not name.strip('-') or name != name.strip():
        raise errors.UserError(
          f'--slurm_option must be NAME=VALUE or NAME; it is {errors.shown(text)}.'
        )

  @property
  def further(self) -> dict[str, str | bool]:
    """The further options of sbatch by name; True for one without a value."""
    parts = [text.partition('=') for text in self.sbatch]
    return {name.lstrip('-'): value if sign else True for name, sign, value in parts}
