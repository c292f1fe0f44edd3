"""Slurm of one machine: its daemons in a temporary folder, with a key, ports and a configuration of their own."""
import os
import pathlib
import shutil
import socket
import subprocess
import time

DAEMONS = ("munged", "slurmctld", "slurmd")
TOOLS = ("srun", "sinfo") + DAEMONS
PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"


def obstacle():
    """Why it cannot run here, or None."""
    missing = [tool for tool in TOOLS if not shutil.which(tool, path=PATH)]
    if missing:
        return f"{', '.join(missing)} not installed (Debian: slurmctld slurmd slurm-client munge; scripts/setup.sh slurm)"
    return None if os.geteuid() == 0 else "Slurm's daemons are started by root alone"


def free_port(first):
    """From `first` on, below the ports that the system gives to connections: there it would be somebody's before it is used."""
    for port in range(first, first + 1000):
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass
    raise RuntimeError(f"no free port from {first} on")


class Slurm:
    """With it, environment() is what srun needs."""

    def __init__(self, folder, cpus):
        self.folder, self.running = pathlib.Path(folder), []
        self.folder.chmod(0o755)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        name = socket.gethostname().split(".")[0]
        for part in ("state", "spool"):
            (self.folder / part).mkdir()
        (self.folder / "slurm.conf").write_text(f"""
ClusterName=test
SlurmctldHost={name}(127.0.0.1)
SlurmctldPort={free_port(26000 + os.getpid() % 2000)}
SlurmdPort={free_port(29000 + os.getpid() % 2000)}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={self.folder}/munge.socket
CredType=cred/munge
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/slurmd.pid
SlurmctldLogFile={self.folder}/slurmctld.log
SlurmdLogFile={self.folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=2
MessageTimeout=100
SlurmctldTimeout=600
SlurmdTimeout=600
NodeName={name} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={name} Default=YES MaxTime=INFINITE State=UP
""")

    def environment(self):
        return os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": PATH}

    def __enter__(self):
        f = self.folder
        self.start("munged", "--foreground", "--force", f"--socket={f}/munge.socket", f"--key-file={f}/munge.key",
                   f"--pid-file={f}/munged.pid", f"--seed-file={f}/munged.seed", f"--log-file={f}/munged.log")
        self.wait(lambda: (f / "munge.socket").exists(), "munged")
        self.start("slurmctld", "-D", "-f", f / "slurm.conf")
        self.start("slurmd", "-D", "-f", f / "slurm.conf")
        self.wait(self.is_idle, "an idle node")
        return self

    def start(self, *command):
        log = open(self.folder / f"{command[0]}.out", "w")
        self.running.append(subprocess.Popen([str(part) for part in command], env=self.environment(), stdin=subprocess.DEVNULL,
                                             stdout=log, stderr=log, start_new_session=True))

    def is_idle(self):
        try:
            done = subprocess.run(["sinfo", "-h", "-o", "%T"], env=self.environment(), text=True, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL, timeout=30)
        except subprocess.TimeoutExpired:
            return False
        return done.stdout.strip() == "idle"

    def wait(self, ready, what):
        end = time.monotonic() + 300
        while not ready():
            if time.monotonic() > end or any(p.poll() is not None for p in self.running):
                logs = "".join(f"---- {log.name}\n{log.read_text()[-2000:]}" for log in self.folder.glob("*.[lo][ou][gt]"))
                self.__exit__()
                raise RuntimeError(f"Slurm: waited in vain for {what}\n{logs}")
            time.sleep(0.1)

    def __exit__(self, *_):
        for process in reversed(self.running):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
