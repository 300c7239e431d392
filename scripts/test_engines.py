#!/usr/bin/env python3
"""Runs the tests against real engines, clusters of Spark and Ray, and generated requests: sets each suite up in `.engines/`, then runs
its ignored tests of `cargo test --test engines`.

A suite that cannot be set up here is skipped, with the reason. A failed test fails the run; time that runs out does not, and
is named. Whatever the tests started is stopped at the end. Arguments are names of suites; without any, all run. The variable
ENGINES_MINUTES limits the whole run.
"""

import ctypes
import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = ROOT / "tests" / "engines"
ENGINES = ROOT / ".engines"
MINUTES = float(os.environ.get("ENGINES_MINUTES", "18"))
SETUP_SECONDS_MAX = 300
MAVEN_DEPENDENCY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
# SHA-256 of the archives of plug-ins, for which the repository has no checksums
ARCHIVES = {
    "neural-search-2.19.1.0.zip": "b17ca1d774692902c58cbae102bf463970740c31d81446866e8eabd336e285aa",
    "opensearch-knn-2.19.1.0.zip": "eab8c9818865bc035212eab5068cdacae164baa09d4c152f49b736d6f6b0e85c",
    "neural-search-3.6.0.0.zip": "6ef1b206e79391e2e36268e32dc34d27fd8b8a59a8eb0a7393c97d53b038e433",
    "opensearch-knn-3.5.0.0.zip": "99fdf3ac9ef95974e276298b83a58532bf21ba13bd5fd96a4b59465b7e613309",
}
# prctl: processes whose parent ended become children of this one
PR_SET_CHILD_SUBREAPER = 36


class Missing(Exception):
    """Reason why an engine cannot be had here."""


def wheels(name, java=None):
    """A Python environment in `.engines/NAME/venv` with the wheels of `tests/engines/NAME/requirements.txt`, and in
    `.engines/NAME/jvm` a Java of this range of versions."""
    requirements = SOURCES / name / "requirements.txt"

    def fill(folder):
        if java is not None:
            (folder / "jvm").symlink_to(pathlib.Path(find_java(*java)).resolve().parent.parent)
        quietly([sys.executable, "-m", "venv", str(folder / "venv")])
        pip = [str(folder / "venv" / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
               "--only-binary=:all:", "-r", str(requirements)]
        quietly(pip)

    # the scripts of an environment hold its path, so it is made in place
    once(ENGINES / name, [requirements], fill)


def jars(name, java_min, java_max):
    """The artefacts of `tests/engines/NAME.xml` and the jars of their plug-in archives in `.engines/NAME`, and a Java for them."""
    pom = SOURCES / f"{name}.xml"

    def fill(folder):
        java = find_java(java_min, java_max)
        maven = shutil.which("mvn")
        if maven is None:
            raise Missing("mvn is not on the PATH")
        with tempfile.TemporaryDirectory(prefix="splade-maven-") as repository:
            quietly([maven, "--quiet", "--batch-mode", "-Dstyle.color=never", "--file", str(pom),
                     f"-Dmaven.repo.local={repository}", f"{MAVEN_DEPENDENCY}:copy-dependencies",
                     f"-DoutputDirectory={folder}"])
        for archive in folder.glob("*.zip"):
            if hashlib.sha256(archive.read_bytes()).hexdigest() != ARCHIVES.get(archive.name):
                raise Missing(f"{archive.name} is not the file that is known by its SHA-256")
            unpack_plugin(archive, folder)
            archive.unlink()
        (folder / "java").symlink_to(java)

    once(ENGINES / name, [pom], fill)


def unpack_plugin(archive, folder):
    """Copies the jars of a plug-in that are not there in another version. Lucene codecs of k-NN, whose classes another plug-in
    needs and whose native library is not there, are not registered."""
    have = {artefact(path.name) for path in folder.glob("*.jar")}
    with zipfile.ZipFile(archive) as plugin:
        for member in plugin.namelist():
            if not member.endswith(".jar") or artefact(member) in have:
                continue
            target = folder / member
            target.write_bytes(plugin.read(member))
            if artefact(member) == "opensearch-knn":
                without_services(target)


def without_services(jar):
    aside = jar.with_suffix(".part")
    with zipfile.ZipFile(jar) as source, zipfile.ZipFile(aside, "w") as sink:
        for member in source.infolist():
            if not member.filename.startswith("META-INF/services/"):
                sink.writestr(member, source.read(member))
    os.replace(aside, jar)


def artefact(file_name):
    return re.sub(r"-\d.*", "", pathlib.PurePosixPath(file_name).name)


def find_java(least, most):
    """Path of a Java whose version is in this range."""
    homes = [os.environ.get("JAVA_HOME"), *sorted(map(str, pathlib.Path("/usr/lib/jvm").glob("*")))]
    for java in [shutil.which("java"), *(os.path.join(home, "bin", "java") for home in homes if home)]:
        if java is None or not os.access(java, os.X_OK):
            continue
        text = subprocess.run([java, "-version"], capture_output=True, text=True).stderr
        version = re.search(r'version "(\d+)', text)
        if version and least <= int(version[1]) <= most:
            return java
    raise Missing(f"no Java from {least} to {most} is on the PATH, in JAVA_HOME or in /usr/lib/jvm")


# Suites in the order of their runs: a prefix of the names of tests, and what they need. The tests of an engine that people have
# to set up by hand are not listed.
SUITES = {
    "qdrant::live": lambda: wheels("qdrant"),
    "postgres": lambda: wheels("postgres"),
    "milvus": lambda: wheels("milvus"),
    "files": lambda: wheels("files"),
    "openapi": lambda: wheels("openapi"),
    "clusters::spark": lambda: wheels("clusters/spark", java=(17, 21)),
    "clusters::ray": lambda: wheels("clusters/ray"),
    "opensearch::v2": lambda: jars("opensearch/v2", 17, 23),
    "opensearch::v3": lambda: jars("opensearch/v3", 21, 99),
}


def once(folder, sources, fill):
    """Calls `fill` for `folder` unless it was filled from the same sources."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in [*sources, pathlib.Path(__file__)])).hexdigest()
    stamp = folder / "stamp"
    if stamp.exists() and stamp.read_text() == digest:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    fill(folder)
    stamp.write_text(digest)


def quietly(command):
    """Runs a command of a set-up; its failure means that something cannot be had."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SETUP_SECONDS_MAX, cwd=ROOT)
    except subprocess.TimeoutExpired:
        raise Missing(f"{pathlib.Path(command[0]).name} took more than {SETUP_SECONDS_MAX} s") from None
    except OSError as error:
        raise Missing(str(error)) from None
    if done.returncode != 0:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if "ERROR" in line or "error" in line]
        raise Missing(lines[0].strip() if lines else f"{command[0]} failed with {done.returncode}")


def descendants():
    """Processes that this one and its children started."""
    parents = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(entry.parent.name)] = int(entry.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, ValueError, IndexError):
            continue
    found, new = set(), {os.getpid()}
    while new:
        new = {process for process, parent in parents.items() if parent in new} - found
        found |= new
    return found


def stop_all():
    for process in descendants():
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            pass


def run(suite, end):
    """Runs the ignored tests of a suite. Returns its outcome: `passed`, `failed` or `out of time`."""
    command = ["cargo", "test", "--workspace", "--test", "engines", "--", "--ignored", "--test-threads=1", f"{suite}::"]
    passed = 0
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as tests:
        # when the time is out, the end of the tests ends the loop
        timer = threading.Timer(max(end - time.monotonic(), 0), stop_all)
        timer.start()
        for line in tests.stdout:
            print(line, end="", flush=True)
            result = re.match(r"test result: ok\. (\d+) passed", line)
            passed += int(result[1]) if result else 0
        tests.wait()
        timer.cancel()
    stop_all()
    if tests.returncode != 0 and time.monotonic() >= end:
        return "out of time"
    # a filter that matches no test must not pass
    return "passed" if tests.returncode == 0 and passed > 0 else "failed"


def main():
    wanted = sys.argv[1:] or list(SUITES)
    unknown = [name for name in wanted if name not in SUITES]
    if unknown:
        sys.exit(f"test-engines: no suite {unknown[0]}; there are {', '.join(SUITES)}")
    end = time.monotonic() + MINUTES * 60
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: (stop_all(), sys.exit(128 + number)))
    outcomes = {}
    for suite in wanted:
        start = time.monotonic()
        if start > end:
            outcomes[suite] = "skipped: no time is left"
            continue
        try:
            SUITES[suite]()
            outcomes[suite] = f"{run(suite, end)}, {time.monotonic() - start:.0f} s"
        except Missing as reason:
            outcomes[suite] = f"skipped: {reason}"
    for suite, outcome in outcomes.items():
        print(f"test-engines: {suite}: {outcome}")
    if any(outcome.startswith("failed") for outcome in outcomes.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
