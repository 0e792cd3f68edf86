#!/usr/bin/env bash
# Start or stop a one-node SLURM on this machine, for trials. Jobs run as on a cluster.
#
#     sudo slurm/local_cluster.sh start [FOLDER]    # default: /tmp/neuroal-slurm
#     export SLURM_CONF=/tmp/neuroal-slurm/slurm.conf
#     sinfo; sbatch ...
#     sudo slurm/local_cluster.sh stop [FOLDER]
#
# Needs root and the Debian packages slurm-wlm and munge. Uses neither systemd nor cgroups, so it
# works in containers.
set -euo pipefail

action=${1:?start or stop}
folder=$(realpath -m "${2:-/tmp/neuroal-slurm}")

kill_by_file() { # kill the process whose PID a file holds
  [ -f "$1" ] && kill "$(cat "$1")" 2>/dev/null || true
}

stop() {
  kill_by_file "$folder/slurmd.pid"
  kill_by_file "$folder/slurmctld.pid"
  kill_by_file "$folder/munged.pid"
}

missing_programs() {
  for program in munged slurmctld slurmd sbatch; do
    command -v $program >/dev/null || echo $program
  done
}

write_configuration() {
  local host cpus memory version
  host=$(hostname -s)
  cpus=$(nproc)
  memory=$(($(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo) / 1024 * 9 / 10))
  version=$(slurmd -V | sed 's/[^0-9]*\([0-9]*\)\.0*\([0-9]*\).*/\1\2/')
  cat >"$folder/slurm.conf" <<EOF
ClusterName=trial
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${SLURMCTLD_PORT:-16817}
SlurmdPort=${SLURMD_PORT:-16818}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# cred_expire: seconds before a requeued job may restart (default: two minutes)
AuthInfo=socket=$folder/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
JobRequeue=1
KillWait=10
MinJobAge=3600
SchedulerParameters=sched_interval=2,batch_sched_delay=0
MpiDefault=none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$memory State=UNKNOWN
PartitionName=trial Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
  # Since 23.11, slurmd requires a cgroup plugin even if it is unused.
  if [ "$version" -ge 2311 ]; then
    echo "CgroupPlugin=disabled" >"$folder/cgroup.conf"
  fi
}

start() {
  local programs
  programs=$(missing_programs)
  if [ -n "$programs" ]; then
    echo "local_cluster.sh: missing $(echo $programs): apt install slurm-wlm munge" >&2
    exit 2
  fi
  if [ "$(id -u)" != 0 ]; then
    echo "local_cluster.sh: needs root" >&2
    exit 2
  fi
  stop
  mkdir -p "$folder/state" "$folder/spool"
  chmod 755 "$folder"
  write_configuration
  [ -f "$folder/munge.key" ] || dd if=/dev/urandom of="$folder/munge.key" bs=1 count=1024 status=none
  chmod 600 "$folder/munge.key"
  # --force: the socket may be in a folder that others can write to, such as /tmp.
  munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
    --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" --seed-file="$folder/munged.seed"
  export SLURM_CONF="$folder/slurm.conf"
  slurmctld -c
  slurmd
  for _ in $(seq 60); do
    if sinfo -h -o %t 2>/dev/null | grep -q idle; then
      echo "export SLURM_CONF=$folder/slurm.conf"
      return
    fi
    sleep 0.5
  done
  echo "local_cluster.sh: the node did not come up; see $folder/slurmd.log" >&2
  tail -n 5 "$folder/slurmctld.log" "$folder/slurmd.log" >&2
  exit 1
}

case $action in
  start) start ;;
  stop) stop ;;
  *) echo "local_cluster.sh: action must be start or stop, not '$action'" >&2; exit 2 ;;
esac
