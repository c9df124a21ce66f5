#!/usr/bin/env bash
# local-slurm.sh - a real, throw-away SLURM cluster on this one machine, for tests.
#
#   local-slurm.sh start    start it (does nothing if it is already up); waits until every node is idle
#   local-slurm.sh stop     cancel its jobs and stop the processes that `start` started, and no others
#   local-slurm.sh status   say what runs; exit 0: all up, 3: all down, 1: in between
#   local-slurm.sh env      print the line a client needs:  eval "$(local-slurm.sh env)"
#
# Installs nothing.  No systemd, no cgroups, no files outside its folder.  Listens on loopback only,
# provided that the host's name resolves to 127.0.0.1, else on every address (as ever, munge lets in
# only who has its key).  Runs as root, or as an ordinary user (then only that user's jobs run).
#
# Settings (environment; read when the cluster is started):
#   LOCAL_SLURM_DIR         state folder, keep it short       (${TMPDIR:-/tmp}/local-slurm)
#   LOCAL_SLURM_NODES       virtual nodes: n1, n2, ...        (2)
#   LOCAL_SLURM_CPUS        CPUs of each node, need not exist (2)
#   LOCAL_SLURM_MEM_MB      memory of each node               (1/NODES of the machine's, 4000 at most)
#   LOCAL_SLURM_GPUS        pretended GPUs of each node       (0)
#   LOCAL_SLURM_MAX_ARRAY   MaxArraySize: an array's tasks must be fewer (1001)
#   LOCAL_SLURM_PORT        first of NODES + 2 TCP ports      (26810)
#   LOCAL_SLURM_ACCOUNTING  dbd: slurmdbd + MariaDB, so that `sacct` works (submitit needs it)
#                           none: two daemons fewer, no sacct (dbd)
#   LOCAL_SLURM_KILL_WAIT   seconds from SIGTERM to SIGKILL, under 5 counts as 5 (5; SLURM's default: 30)
#   LOCAL_SLURM_REQUEUE_S   seconds a requeued job waits; must exceed the former, or after a node
#                           failure the node is sent a job that it is still killing (8; default: 121)
#   LOCAL_SLURM_WAIT_S      how long `start` waits for idle   (60)

set -u -o pipefail
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin
# nothing of a SLURM job or of a user's preferences that this may run under
# shellcheck disable=SC2046
unset $(compgen -e | grep -E '^(SLURM|SLURMD|SBATCH|SRUN|SALLOC|SQUEUE|SINFO|SACCT|SCANCEL|SCONTROL)_')

DIR=${LOCAL_SLURM_DIR:-${TMPDIR:-/tmp}/local-slurm}
case $DIR in /*) ;; *) DIR=$PWD/$DIR ;; esac
DIR=${DIR%/}
export LOCAL_SLURM_DIR=$DIR             # every daemon carries it: how `stop` knows them
export SLURM_CONF=$DIR/etc/slurm.conf
NODES=${LOCAL_SLURM_NODES:-2}
CPUS=${LOCAL_SLURM_CPUS:-2}
GPUS=${LOCAL_SLURM_GPUS:-0}
MAX_ARRAY=${LOCAL_SLURM_MAX_ARRAY:-1001}
PORT=${LOCAL_SLURM_PORT:-26810}
ACCOUNTING=${LOCAL_SLURM_ACCOUNTING:-dbd}
KILL_WAIT=${LOCAL_SLURM_KILL_WAIT:-5}
REQUEUE_S=${LOCAL_SLURM_REQUEUE_S:-8}
WAIT_S=${LOCAL_SLURM_WAIT_S:-60}
MUNGE_SOCKET=$DIR/munge.sock
CLUSTER=localslurm
DB_SOCKET=$DIR/db/db.sock                 # db/ is closed to others

say() { printf 'local-slurm: %s\n' "$*"; }
die() { printf 'local-slurm: %s\n' "$*" >&2; exit 1; }

# --- processes -----------------------------------------------------------------------------------

# pid_of NAME: prints the pid in NAME's pid file if that process is alive, is a NAME and is of this cluster
pid_of() {
    local pid
    [ -f "$DIR/run/$1.pid" ] && pid=$(tr -dc 0-9 <"$DIR/run/$1.pid") || return 1
    [ -n "$pid" ] || return 1
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "${1%%-*}" ] || return 1
    # (a zombie has no environment, so it counts as gone)
    grep -qzxF "LOCAL_SLURM_DIR=$DIR" "/proc/$pid/environ" 2>/dev/null || return 1
    echo "$pid"
}

# wait_for SECONDS COMMAND...: polls until COMMAND succeeds
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.1
    done
}

gone() { ! pid_of "$1"; }

stop_one() {
    local pid
    pid=$(pid_of "$1") || { rm -f "$DIR/run/$1.pid"; return 0; }
    kill -TERM "$pid" 2>/dev/null
    if ! wait_for 20 gone "$1"; then
        say "$1 (pid $pid) ignores SIGTERM, killing it"
        kill -KILL "$pid" 2>/dev/null
        wait_for 5 gone "$1"
    fi
    rm -f "$DIR/run/$1.pid"
}

# the cluster's daemons, in starting order (as configured on disk, so that `stop` needs no settings)
daemons() {
    echo munged
    if [ -f "$DIR/etc/slurmdbd.conf" ]; then echo mariadbd; echo slurmdbd; fi
    echo slurmctld
    [ -f "$SLURM_CONF" ] && sed -n 's/^NodeName=\([^ ]*\) .*/slurmd-\1/p' "$SLURM_CONF"
}

# --- start ---------------------------------------------------------------------------------------

check_binaries() {
    local missing='' packages='' pair
    local pairs="munged:munge mungekey:munge slurmctld:slurmctld slurmd:slurmd"
    pairs+=" sinfo:slurm-client sbatch:slurm-client srun:slurm-client scontrol:slurm-client"
    [ "$ACCOUNTING" = none ] || pairs+=" slurmdbd:slurmdbd sacct:slurm-client mariadbd:mariadb-server-core
        mariadb-install-db:mariadb-server-core mariadb:mariadb-client-core my_print_defaults:mariadb-client-core"
    for pair in $pairs; do
        command -v "${pair%%:*}" >/dev/null && continue
        missing+=" ${pair%%:*}"
        case " $packages " in *" ${pair##*:} "*) ;; *) packages+=" ${pair##*:}" ;; esac
    done
    [ -z "$missing" ] && return
    say "missing:$missing" >&2
    say "on Debian or Ubuntu:  apt-get update && apt-get install -y --no-install-recommends$packages" >&2
    exit 2
}

write_config() {
    local host addr comm user mem total i gres=''
    host=$(hostname -s 2>/dev/null || hostname)
    user=$(id -un)
    # SLURM binds to every address, or with No...InAddrAny to the one that the host's name resolves to
    addr=$(getent ahostsv4 "$(hostname)" | awk 'NR == 1 {print $1}')
    case $addr in
    127.0.0.1) comm=CommunicationParameters=NoInAddrAny,NoCtldInAddrAny ;;
    *) addr=127.0.0.1 comm="# the host's name is not 127.0.0.1: listens on every address" ;;
    esac
    total=$(awk '/^MemTotal:/ {print int($2 / 1024)}' /proc/meminfo)
    mem=$((total * 9 / 10 / NODES))
    [ "$mem" -le 4000 ] || mem=4000
    mem=${LOCAL_SLURM_MEM_MB:-$mem}

    mkdir -p "$DIR"/{etc,log,run,state} || die "cannot write to $DIR"
    # Job ids must not come again after the folder was removed: submitit takes a result file of an
    # older job with the same id for the new job's.  So a new folder starts at an id made of the time.
    [ -f "$DIR/etc/first-job-id" ] || echo $(($(date +%s) / 60 % 60000 * 1000 + 1)) >"$DIR/etc/first-job-id"

    {
        cat <<CONF
ClusterName=$CLUSTER
SlurmctldHost=$host($addr)
SlurmctldPort=$PORT
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
CredType=cred/munge
# a requeued job waits for cred_expire + 1 s
AuthInfo=socket=$MUNGE_SOCKET,cred_expire=$((REQUEUE_S > 6 ? REQUEUE_S - 1 : 5))
$comm
StateSaveLocation=$DIR/state
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdPidFile=$DIR/run/slurmd-%n.pid
SlurmdLogFile=$DIR/log/slurmd-%n.log
SlurmdSpoolDir=$DIR/spool-%n
# nothing that needs cgroups, root or real hardware
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
PropagateResourceLimits=NONE
# CPUs and memory are handed out and, by polling, memory limits are enforced
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=$((mem / CPUS))
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
# fast turn-around
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
KillWait=$KILL_WAIT
MaxArraySize=$MAX_ARRAY
# refuse at once what can never run
EnforcePartLimits=ALL
# a node that a test set down stays so; one that did not answer comes back
ReturnToService=1
FirstJobId=$(cat "$DIR/etc/first-job-id")
JobCompType=jobcomp/filetxt
JobCompLoc=$DIR/log/jobcomp.log
CONF
        if [ "$ACCOUNTING" = none ]; then
            echo "AccountingStorageType=accounting_storage/none"
        else
            cat <<CONF
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=$addr
AccountingStoragePort=$((PORT + 1))
# not a pass word: where the private munged listens
AccountingStoragePass=$MUNGE_SOCKET
CONF
        fi
        if [ "$GPUS" -gt 0 ]; then
            gres=" Gres=gpu:$GPUS"
            echo "GresTypes=gpu"
        fi
        for ((i = 1; i <= NODES; i++)); do
            echo "NodeName=n$i NodeHostname=$host NodeAddr=$addr Port=$((PORT + 1 + i)) CPUs=$CPUS RealMemory=$mem$gres State=UNKNOWN"
        done
        echo "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP"
    } >"$SLURM_CONF" || die "cannot write $SLURM_CONF"

    rm -f "$DIR/etc/gres.conf"
    if [ "$GPUS" -gt 0 ]; then
        # SLURM wants device files; without cgroups it only counts them and sets CUDA_VISIBLE_DEVICES
        for ((i = 0; i < GPUS; i++)); do ln -sfn /dev/null "$DIR/run/gpu$i"; done
        echo "Name=gpu File=$DIR/run/gpu[0-$((GPUS - 1))]" >"$DIR/etc/gres.conf"
    fi

    rm -f "$DIR/etc/slurmdbd.conf"
    [ "$ACCOUNTING" = none ] && return
    (umask 077 && cat >"$DIR/etc/slurmdbd.conf") <<CONF
AuthType=auth/munge
AuthInfo=socket=$MUNGE_SOCKET
DbdHost=localhost
DbdAddr=$addr
DbdPort=$((PORT + 1))
$comm
SlurmUser=$user
LogFile=$DIR/log/slurmdbd.log
PidFile=$DIR/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct
CONF
    cat >"$DIR/etc/my.cnf" <<CONF
[mysqld]
datadir=$DIR/db
socket=$DB_SOCKET
pid-file=$DIR/run/mariadbd.pid
log-error=$DIR/log/mariadbd.log
user=$user
skip-networking
skip-name-resolve
performance_schema=OFF
innodb_buffer_pool_size=16M
innodb_log_file_size=8M
innodb_flush_log_at_trx_commit=0
innodb_lock_wait_timeout=900
CONF
}

start_munged() {
    [ -f "$DIR/etc/munge.key" ] || (umask 077 && mungekey --create --keyfile="$DIR/etc/munge.key") || return 1
    # --force: else it wants every folder above the socket open to all users, which mktemp -d's is not
    munged --force --key-file="$DIR/etc/munge.key" --socket="$MUNGE_SOCKET" --pid-file="$DIR/run/munged.pid" \
        --log-file="$DIR/log/munged.log" --seed-file="$DIR/run/munged.seed" --num-threads=4
}

db() { mariadb --no-defaults --socket="$DB_SOCKET" --user=root --execute="$1"; }

start_mariadbd() {
    if [ ! -d "$DIR/db" ]; then
        rm -rf "$DIR/db.new"
        mariadb-install-db --no-defaults --datadir="$DIR/db.new" --user="$(id -un)" --skip-name-resolve \
            --skip-test-db --auth-root-authentication-method=normal --innodb-log-file-size=8M \
            >"$DIR/log/mariadb-install-db.log" 2>&1 && mv "$DIR/db.new" "$DIR/db" || return 1
    fi
    setsid mariadbd --defaults-file="$DIR/etc/my.cnf" </dev/null >>"$DIR/log/mariadbd.log" 2>&1 &
    wait_for "$WAIT_S" db "CREATE DATABASE IF NOT EXISTS slurm_acct"
}

start_slurmdbd() {
    MYSQL_UNIX_PORT=$DB_SOCKET slurmdbd && wait_for "$WAIT_S" tcp_open $((PORT + 1))
}

tcp_open() { (exec 3<>"/dev/tcp/$(sed -n 's/^DbdAddr=//p' "$DIR/etc/slurmdbd.conf")/$1"); }

start_slurmctld() {
    slurmctld && wait_for "$WAIT_S" controller_up
}

controller_up() { scontrol ping | grep -q ' is UP'; }

start_slurmd() { slurmd -N "$1"; }

all_idle() {
    local states
    states=$(sinfo --noheader --Node --format=%T) || return 1
    [ "$(grep -c . <<<"$states")" -eq "$NODES" ] && ! grep -qvE '^(idle|mixed|allocated|completing)$' <<<"$states"
}

fail() {
    local log
    say "$1; ends of the logs in $DIR/log:" >&2
    for log in "$DIR"/log/*.log; do
        [ -s "$log" ] && { printf -- '--- %s\n' "$log"; tail -n 8 "$log"; } >&2
    done
    stop_all
    exit 1
}

start() {
    local name t0=$SECONDS started=''
    case $ACCOUNTING in dbd | none) ;; *) die "LOCAL_SLURM_ACCOUNTING is dbd or none" ;; esac
    check_binaries
    # a unix socket's path has 107 characters at most, and slurmstepd makes one in spool-NODE/
    case $DIR in *[!A-Za-z0-9_./+-]*) die "LOCAL_SLURM_DIR has an odd character: $DIR" ;; esac
    [ ${#DIR} -le 64 ] || die "LOCAL_SLURM_DIR is longer than 64 characters: $DIR"
    mkdir -p "$DIR/run" || die "cannot make $DIR"
    exec 9>"$DIR/run/lock"
    flock -w 120 9 || die "another start or stop holds $DIR/run/lock"

    local up=0
    for name in $(daemons); do pid_of "$name" >/dev/null && up=$((up + 1)); done
    [ $up -gt 0 ] || write_config              # settings of a running cluster stay as they are
    NODES=$(grep -c '^NodeName=' "$SLURM_CONF")
    PORT=$(sed -n 's/^SlurmctldPort=//p' "$SLURM_CONF")

    for name in $(daemons); do
        pid_of "$name" >/dev/null && continue
        rm -f "$DIR/run/$name.pid"
        case $name in
        slurmd-*) start_slurmd "${name#slurmd-}" 9>&- ;;
        *) "start_$name" 9>&- ;;
        esac || fail "$name did not start"
        started+=" $name"
    done
    # a test may have left a node drained or down, which outlives a restart
    for name in $(sinfo --noheader --Node --format=%N --states=drain,drained,down,fail | sort -u); do
        scontrol update NodeName="$name" State=RESUME 2>/dev/null
    done
    wait_for "$WAIT_S" all_idle || fail "the nodes are not idle after $WAIT_S s: $(sinfo -h -N -o '%N %T' 2>&1 | tr '\n' ' ')"
    if [ -n "$started" ]; then say "started$started in $((SECONDS - t0)) s"; else say "already up"; fi
    sinfo --noheader --format='%P %D nodes, %c CPUs and %m MB each, %G, %T: %N'
    say "clients need:  export SLURM_CONF=$SLURM_CONF"
}

# --- stop ----------------------------------------------------------------------------------------

no_jobs() { [ -z "$(squeue --noheader --format=%A)" ]; }

# job_processes: pids of what still runs of this cluster's jobs.  slurmd gives each slurmstepd this
# SLURM_CONF, and each job this SLURM_CONF and SLURM_CLUSTER_NAME (a client has the first at most).
job_processes() {
    local f pid
    for f in /proc/[0-9]*/environ; do
        grep -qzxF "SLURM_CONF=$SLURM_CONF" "$f" 2>/dev/null || continue
        pid=${f#/proc/} pid=${pid%/environ}
        [ "$pid" != $$ ] || continue
        if grep -qzxF "SLURM_CLUSTER_NAME=$CLUSTER" "$f" 2>/dev/null ||
            [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = slurmstepd ]; then
            echo "$pid"
        fi
    done
}

stop_all() {
    local name left
    if pid_of slurmctld >/dev/null && controller_up; then
        squeue --noheader --format=%A | sort -u | xargs -r scancel 2>/dev/null
        wait_for 2 no_jobs ||
            { squeue --noheader --format=%A | sort -u | xargs -r scancel --full --signal=KILL 2>/dev/null; } ||
            true
        wait_for $((KILL_WAIT + 10)) no_jobs || say "some jobs do not end: $(squeue -h -o %A | tr '\n' ' ')"
    fi
    for name in $(daemons | tac); do stop_one "$name"; done
    # what a job detached, or all of a job's if slurmctld was dead already
    left=$(job_processes | tr '\n' ' ')
    if [ -n "$left" ]; then
        say "killing what jobs left behind: $left"
        # shellcheck disable=SC2086
        kill -KILL $left 2>/dev/null
    fi
    return 0
}

stop() {
    [ -d "$DIR/run" ] || { say "not running ($DIR does not exist)"; return; }
    exec 9>"$DIR/run/lock"
    flock -w 120 9 || die "another start or stop holds $DIR/run/lock"
    stop_all
    say "stopped; its folder stays: $DIR"
}

# --- status --------------------------------------------------------------------------------------

status() {
    local name pid up=0 down=0
    for name in $(daemons); do
        if pid=$(pid_of "$name"); then up=$((up + 1)); say "$name: pid $pid"; else down=$((down + 1)); say "$name: down"; fi
    done
    [ $up -gt 0 ] || return 3
    [ $down -eq 0 ] || return 1
    sinfo || return 1
    squeue
}

case ${1:-} in
start) start ;;
stop) stop ;;
status) status ;;
env) echo "export SLURM_CONF='$SLURM_CONF'" ;;
*) sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; exit 64 ;;
esac
