# Shared by the scripts in bin/: finds or makes the virtual environment. Source it; it is not a command.
# Each step says one line on stderr, is silent when there is nothing to do, and shows its output only when it fails.

ZKBROKER_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
ZKBROKER_VENV="${ZKBROKER_VENV:-$ZKBROKER_ROOT/.venv}"

say() { printf '%s\n' "$*" >&2; }
die() { say "$(basename "$0"): $*"; exit 1; }

# quietly WHAT COMMAND...: run the command; its output is shown only if it fails.
quietly() {
    local what="$1" output
    shift
    say "· $what"
    if ! output="$("$@" 2>&1 </dev/null)"; then
        say "$output"
        die "$what failed"
    fi
}

# as_root COMMAND...: as root or through a sudo that asks for no password; fails otherwise.
as_root() {
    if [ "$(id -u)" = 0 ]; then env DEBIAN_FRONTEND=noninteractive "$@"; else sudo -n env DEBIAN_FRONTEND=noninteractive "$@"; fi
}

apt_install() {
    # The package lists of a fresh machine are empty or old: bring them up to date only if the first try fails.
    as_root apt-get install -y -qq --no-install-recommends "$@" || {
        as_root apt-get update -qq && as_root apt-get install -y -qq --no-install-recommends "$@"
    }
}

# need_debian run|test: install what tests/debian-packages.txt lists for that use and this machine lacks.
need_debian() {
    local name use missing=()
    command -v dpkg-query >/dev/null || return 0 # not Debian: the tools must be there already, each says what it lacks
    while read -r name use; do
        case "$name" in '' | '#'*) continue ;; esac
        [ "$use" = run ] || [ "$1" = test ] || continue
        provided "$name" || missing+=("$name")
    done <"$ZKBROKER_ROOT/tests/debian-packages.txt"
    [ "${#missing[@]}" = 0 ] && return 0
    if [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; then
        die "missing Debian packages; install them first: sudo apt-get install ${missing[*]}"
    fi
    quietly "installing Debian packages: ${missing[*]}" apt_install "${missing[@]}"
}

# provided PACKAGE: installed, or what it would bring is on this machine from elsewhere.
provided() {
    case "$1" in
    python3-venv) find_python >/dev/null && return 0 ;;
    default-jre-headless) command -v java >/dev/null && return 0 ;;
    default-jdk-headless) command -v javac >/dev/null && return 0 ;;
    maven) { command -v mvn >/dev/null || [ -n "${ZKBROKER_KAFKA_LIBS:+${ZKBROKER_KAFKA4_LIBS:-}}" ]; } && return 0 ;;
    kcat) command -v kcat >/dev/null && return 0 ;;
    zookeeper) [ -n "${ZOOKEEPER_CONNECT:-}${ZOOKEEPER_HOME:-}" ] && [ "${ZKBROKER_STAGE:-run}" = run ] && return 0 ;;
    esac
    [ "$(dpkg-query -W -f '${Status}' "$1" 2>/dev/null)" = "install ok installed" ]
}

# find_python: the newest Python >= 3.11 that can make virtual environments.
find_python() {
    local python
    for python in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        [ -n "$python" ] && command -v "$python" >/dev/null || continue
        if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$python"
            return 0
        fi
    done
    return 1
}

# need_venv run|test: make .venv and install zkbroker into it, unless the stamp says that it was done for this setup.cfg.
need_venv() {
    local stamp="$ZKBROKER_VENV/.zkbroker-$1" want python
    want="$(cat "$ZKBROKER_ROOT/setup.cfg" "$ZKBROKER_ROOT/pyproject.toml" | cksum)"
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && return 0
    # Two scripts started together: the second waits here and then finds the stamp.
    mkdir -p "$ZKBROKER_ROOT/.cache"
    exec 9>"$ZKBROKER_ROOT/.cache/venv.lock"
    if command -v flock >/dev/null; then flock 9; fi
    if ! { [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; }; then
        if [ ! -x "$ZKBROKER_VENV/bin/python" ]; then
            python="$(find_python)" || die "needs Python 3.11 or newer with venv (Debian: python3-venv)"
            quietly "making a virtual environment with $("$python" -V)" "$python" -m venv "$ZKBROKER_VENV"
        fi
        local what="$ZKBROKER_ROOT"
        [ "$1" = test ] && what="$ZKBROKER_ROOT[test]"
        quietly "installing zkbroker and its libraries" \
            "$ZKBROKER_VENV/bin/python" -m pip install --quiet --disable-pip-version-check -e "$what"
        printf '%s' "$want" >"$stamp"
    fi
    exec 9>&-
}

# need_kafka_libs: Kafka's own Java classes, for the interop tests: its brokers and tools of 3.9.1, the clients and tools
# of 4.1.1; sets ZKBROKER_KAFKA_LIBS and ZKBROKER_KAFKA4_LIBS.
need_kafka_libs() {
    # Plain assignments: the script ends where one of them fails.
    if [ -z "${ZKBROKER_KAFKA_LIBS:-}" ]; then ZKBROKER_KAFKA_LIBS="$(fetched_kafka 3.9.1)"; fi
    if [ -z "${ZKBROKER_KAFKA4_LIBS:-}" ]; then ZKBROKER_KAFKA4_LIBS="$(fetched_kafka 4.1.1)"; fi
    export ZKBROKER_KAFKA_LIBS ZKBROKER_KAFKA4_LIBS
}

# fetched_kafka VERSION: the folder with its jars, fetched once.
fetched_kafka() {
    local libs="$ZKBROKER_ROOT/.cache/kafka-$1/libs"
    mkdir -p "$libs"
    exec 8>"$libs/../lock"
    if command -v flock >/dev/null; then flock 8; fi
    if [ ! -f "$libs/.complete" ]; then
        quietly "fetching Kafka $1's Java libraries with Maven" mvn -q -B -f "$ZKBROKER_ROOT/tests/interop/pom.xml" \
            -Dkafka.version="$1" dependency:copy-dependencies -DoutputDirectory="$libs"
        touch "$libs/.complete"
    fi
    exec 8>&-
    printf '%s' "$libs"
}

# help_if_asked MODULE ARGS...: where -h or --help is among the arguments, become the tool that prints its help. Nothing is
# installed for that: what of the libraries is missing has stand-ins.
help_if_asked() {
    local module="$1" argument python="${ZKBROKER_PYTHON:-}"
    shift
    for argument in "$@"; do
        case "$argument" in -h | --help) ;; *) continue ;; esac
        [ -n "$python" ] || python="$ZKBROKER_VENV/bin/python"
        command -v "$python" >/dev/null || python="$(find_python)" || return 0 # what follows says that one is needed
        export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$ZKBROKER_ROOT${PYTHONPATH:+:$PYTHONPATH}"
        exec "$python" -m zkbroker.cli._help "$module" "$@"
    done
}

# run_tool MODULE ARGS...: become the tool. An installed package's interpreter is used when ZKBROKER_PYTHON names one.
run_tool() {
    local module="$1" python="${ZKBROKER_PYTHON:-}"
    help_if_asked "$@"
    shift
    if [ -z "$python" ]; then
        [ -f "$ZKBROKER_VENV/.zkbroker-test" ] || need_venv run
        python="$ZKBROKER_VENV/bin/python"
    fi
    # A broker reads ZKBROKER_… variables as settings; these are the scripts' own.
    unset ZKBROKER_ROOT ZKBROKER_VENV ZKBROKER_PYTHON ZKBROKER_STAGE ZKBROKER_KAFKA_LIBS ZKBROKER_KAFKA4_LIBS
    exec "$python" -m "$module" "$@"
}
