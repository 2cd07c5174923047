"""A Slurm cluster of one node, this machine, in a folder of its own: Debian's `slurm-wlm` and `munge` suffice.

Whoever starts it is the administrator and the only user. Its daemons run in the foreground, so that they end with it.
"""

import getpass
import os
import shutil
import subprocess
import time
from pathlib import Path

from forked import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol", "squeue", "sinfo")
PATH = f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"  # daemons are not on the path of everybody
# A job that is queued again may start at once (cred_expire), and no time limit is looked at seconds too late. Runs
# take their port from their job's number, and two clusters on this machine begin with different ones.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
FirstJobId={job}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
KillWait=30
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=16000
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing_programs():
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


class Cluster:
    """Use it as a context; `environment` is that of a user who logs in there."""

    def __init__(self, folder):
        self.folder, self.daemons = Path(folder), []
        self.environment = os.environ | {"PATH": PATH, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def __enter__(self):
        for name in ("munge", "state", "spool"):
            (self.folder / name).mkdir()
        (self.folder / "munge" / "key").write_bytes(os.urandom(128))
        (self.folder / "munge" / "key").chmod(0o600)
        names = {"folder": self.folder, "user": getpass.getuser(), "host": os.uname().nodename.split(".")[0]}
        text = CONFIGURATION.format(**names, controller=free_port(), node=free_port(), job=free_port())
        (self.folder / "slurm.conf").write_text(text)
        try:
            munge = [f"--{name}={self.folder / 'munge' / name}" for name in ("socket", "pid-file", "seed-file")]
            self.start("munged", "--foreground", "--force", f"--key-file={self.folder / 'munge' / 'key'}", *munge)
            self.until(lambda: (self.folder / "munge" / "socket").exists(), 20)
            self.start("slurmctld", "-D")
            self.start("slurmd", "-D", "-N", names["host"])
            self.until(lambda: self.ask("sinfo", "--noheader", "--format=%T").strip() == "idle", 60)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        try:
            if len(self.daemons) == 3:
                # A run that is cancelled may save and queue itself again; then that is cancelled, too.
                self.until(lambda: self.ask("scancel", "--user", getpass.getuser()) or self.is_idle(), 90)
        finally:
            for daemon in reversed(self.daemons):
                daemon.terminate()
                daemon.wait(30)

    def start(self, name, *flags):
        program = shutil.which(name, path=PATH)
        with open(self.folder / f"{name}.log", "w") as log:
            self.daemons.append(
                subprocess.Popen([program, *flags], env=self.environment, stdout=log, stderr=subprocess.STDOUT)
            )

    def ask(self, *words):
        """What one of Slurm's commands prints."""
        done = subprocess.run(list(map(str, words)), env=self.environment, capture_output=True, text=True)
        return done.stdout

    def is_idle(self):
        return not self.ask("squeue", "--noheader")

    def until(self, met, seconds):
        deadline = time.monotonic() + seconds
        while not met():
            if time.monotonic() > deadline:
                raise TimeoutError(self.logs())
            time.sleep(0.2)

    def logs(self):
        return "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(self.folder.glob("*.log")))
