# What scripts/install and scripts/build-deb share: laying out the files of a device below a root. Sourced, never run.
# shellcheck shell=bash
# The sourcing script has `dry` (1: only say it), and `note WHAT TEXT` to say a line.

DEVICE_HOME=/usr/lib/shelfwire

find_device_python() { # print the system's Python, which outlives whatever environment this script runs in
    local python
    for python in "${SHELFWIRE_PYTHON-}" /usr/bin/python3; do
        if [ -n "$python" ] && [ -x "$python" ] &&
            "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$python"
            return
        fi
    done
    die "there is no system Python of at least 3.11" "apt-get install python3   (as root)"
}

python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

pip_into() { # PYTHON FOLDER: install what locks/device.txt names into FOLDER, for PYTHON
    local python=$1 folder=$2 words pip=()
    words=(install --quiet --disable-pip-version-check --no-input --no-compile --no-deps --require-hashes
        --only-binary=:all: --target "$folder" -r locks/device.txt)
    if uv --version >/dev/null 2>&1; then
        quietly uv pip install --quiet --python "$python" --no-deps --require-hashes --target "$folder" \
            -r locks/device.txt
        return
    fi
    if "$python" -m pip --version >/dev/null 2>&1; then
        pip=("$python" -m pip)
    elif same_python_with_pip "$python"; then
        pip=("$SHELFWIRE_VENV/bin/python" -m pip)
    else
        pip=("$python" "$(pip_wheel)/pip")
    fi
    quietly env PIP_ROOT_USER_ACTION=ignore "${pip[@]}" "${words[@]}"
}

same_python_with_pip() { # PYTHON: whether this checkout's environment has pip, for the same version of Python
    [ -x "$SHELFWIRE_VENV/bin/python" ] && [ "$(python_version "$SHELFWIRE_VENV/bin/python")" = "$(python_version "$1")" ] &&
        "$SHELFWIRE_VENV/bin/python" -m pip --version >/dev/null 2>&1
}

pip_wheel() { # print where Debian keeps pip for Pythons without one; a wheel runs as it is
    local wheel
    if ! compgen -G '/usr/share/python-wheels/pip-*.whl' >/dev/null && [ "$(id -u)" -eq 0 ]; then
        quietly env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install python3-pip-whl ||
            { quietly apt-get -qq update && quietly apt-get -qq -y --no-install-recommends install python3-pip-whl; }
    fi
    for wheel in /usr/share/python-wheels/pip-*.whl; do
        [ -e "$wheel" ] && printf '%s\n' "$wheel" && return
    done
    die "there is no pip" "apt-get install python3-pip-whl   (as root)"
}

lay_out_python() { # ROOT PYTHON: an environment of our own below ROOT, whole or not at all
    local root=$1 python=$2 home version site
    home=$root$DEVICE_HOME
    version=$(python_version "$python")
    rm -rf "$home.new"
    site=$home.new/lib/python$version/site-packages
    mkdir -p "$home.new/bin" "$site"
    # Made by hand, for `python -m venv` writes down where it stands now, and this moves.
    printf '%s\n' "home = $(dirname "$python")" "include-system-site-packages = false" "version = $version" \
        >"$home.new/pyvenv.cfg"
    ln -s "$python" "$home.new/bin/python3"
    ln -s python3 "$home.new/bin/python"
    printf '#!%s/bin/python3\nimport sys\n\nfrom agent.cli import main\n\nsys.exit(main())\n' $DEVICE_HOME \
        >"$home.new/bin/shelfwire-agent"
    chmod 755 "$home.new/bin/shelfwire-agent"
    pip_into "$python" "$site" || die "the packages of locks/device.txt could not be installed" "check the network"
    rm -rf "$site/bin" "$site/.lock" # commands of the packages: nobody calls them here
    tar -c --exclude=__pycache__ agent models wire | tar -x --no-same-owner -C "$site"
    describe_project "$python" "$site"
    # By content, not by date: the same bytes each time, and no look at the source at a start.
    PYTHONHASHSEED=0 "$python" -m compileall -q --invalidation-mode unchecked-hash -s "$home.new" -p $DEVICE_HOME \
        "$home.new/lib" >>"$SHELFWIRE_LOG" 2>&1 || true # some packages carry templates that are no Python
    chmod -R u=rwX,go=rX "$home.new"
    cp systemd/device-setup "$home.new/device-setup"
    chmod 755 "$home.new/device-setup"
    environment_digest "$python" >"$home.new/digest"
    rm -rf "$home.old"
    if [ -e "$home" ]; then mv "$home" "$home.old"; fi
    mv "$home.new" "$home"
    rm -rf "$home.old"
}

describe_project() { # PYTHON SITE: what importlib.metadata reads: name, version, needs
    "$1" - "$2" <<'PYTHON'
import pathlib
import sys
import tomllib

project = tomllib.loads(pathlib.Path("pyproject.toml").read_text("utf-8"))["project"]
folder = pathlib.Path(sys.argv[1]) / f"{project['name']}-{project['version']}.dist-info"
folder.mkdir()
needs = "".join(f"Requires-Dist: {need}\n" for need in project["dependencies"])
head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
(folder / "METADATA").write_text(f"{head}Summary: {project['description']}\n{needs}", "utf-8")
(folder / "INSTALLER").write_text("shelfwire\n", "utf-8")
PYTHON
}

environment_digest() { # PYTHON: what the environment is made from
    {
        python_version "$1"
        cat locks/device.txt pyproject.toml systemd/device-setup scripts/_device.sh
        find agent models wire -type f ! -path '*/__pycache__/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    } | sha256sum | cut -d' ' -f1
}

install_python_part() { # ROOT PYTHON
    local root=$1 python=$2 digest
    digest=$(environment_digest "$python")
    if [ "$(cat "$root$DEVICE_HOME/digest" 2>/dev/null)" = "$digest" ]; then
        note packages "$DEVICE_HOME is as it should be"
    elif [ -n "$dry" ]; then
        note packages "would: install locks/device.txt and this version into $DEVICE_HOME (some 500 MB)"
    else
        note packages "installing locks/device.txt and this version into $DEVICE_HOME"
        mkdir -p "$root$(dirname $DEVICE_HOME)"
        lay_out_python "$root" "$python"
        note packages "$DEVICE_HOME: $(du -sm "$root$DEVICE_HOME" | cut -f1) MB"
    fi
}

device_files() { # print SOURCE TARGET MODE of every plain file beside the environment
    local unit
    for unit in systemd/shelfwire*; do echo "$unit /usr/lib/systemd/system/$(basename "$unit") 644"; done
    echo systemd/sysusers.d/shelfwire.conf /usr/lib/sysusers.d/shelfwire.conf 644
    echo systemd/tmpfiles.d/shelfwire.conf /usr/lib/tmpfiles.d/shelfwire.conf 644
    local drop_in page
    for drop_in in systemd/drop-ins/*.conf; do
        echo "$drop_in /usr/share/doc/shelfwire/drop-ins/$(basename "$drop_in") 644"
    done
    for page in install enrolment operations technician cameras codes tools local answers night; do
        if [ -e docs/$page.md ]; then echo docs/$page.md /usr/share/doc/shelfwire/$page.md 644; fi
    done
    echo LICENSE /usr/share/doc/shelfwire/copyright 644
}

install_file() { # SOURCE TARGET MODE ROOT
    local target=$4$2
    if [ -e "$target" ] && cmp -s "$1" "$target"; then
        note files "$2 is as it should be"
    elif [ -n "$dry" ]; then
        note files "would: write $2"
    else
        install -D -m "$3" "$1" "$target"
        note files "$2"
    fi
}

install_files() { # ROOT
    local source target mode
    while read -r source target mode; do install_file "$source" "$target" "$mode" "$1"; done < <(device_files)
}

install_command() { # ROOT PROGRAM: the command on everybody's path
    local link=$1/usr/bin/shelfwire-agent
    if [ "$(readlink "$link" 2>/dev/null)" = "$2" ]; then
        note command "/usr/bin/shelfwire-agent is there"
    elif [ -n "$dry" ]; then
        note command "would: make /usr/bin/shelfwire-agent, a link to $2"
    else
        mkdir -p "$1/usr/bin"
        ln -sfn "$2" "$link"
        note command "/usr/bin/shelfwire-agent"
    fi
}

install_example() { # ROOT PYTHON SITE: the configuration that a new device gets, written by the version installed
    if [ -n "$dry" ]; then
        note configuration "would: write /usr/share/shelfwire/shelfwire.toml, every key explained"
        return
    fi
    mkdir -p "$1/usr/share/shelfwire"
    "$2" -m agent.cli config example --commented >"$1/usr/share/shelfwire/shelfwire.toml" ||
        die "the agent that was just installed does not run" "read what it said above"
}
