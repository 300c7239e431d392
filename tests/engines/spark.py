#!/usr/bin/env python3
"""Spark's recipe on this machine: two workers, one of whose executors is killed in mid-job, against one run.

    PYTHON tests/engines/spark.py SPLADE

needs Java 17 and a Python with pyspark, pandas and pyarrow. SPLADE is the program. The corpus is that of tests/data/lohelp-nb, the
model the tiny one of the fixtures. Every task waits a second before it encodes, so that the killed executor has tasks.
"""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

import pyarrow.json
import pyarrow.parquet

ROOT = pathlib.Path(__file__).resolve().parents[2]
TASKS = 12
# the master of local-cluster mode: workers, cores of each, memory of each in MB
CLUSTER = "local-cluster[2,1,1024]"


def executors(driver):
    """Ids of the processes of executors below the process `driver`."""
    parents = {}
    for process in pathlib.Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                stat = (process / "stat").read_text().rsplit(")", 1)[1].split()
                parents[int(process.name)] = (int(stat[1]), (process / "cmdline").read_bytes())
            except OSError:
                pass  # it has ended

    def is_below(pid):
        while pid in parents and pid != driver:
            pid = parents[pid][0]
        return pid == driver

    return [pid for pid, (_, command) in parents.items() if b"CoarseGrainedExecutorBackend" in command and is_below(pid)]


def kill_one(driver, started, killed):
    """Kills an executor when four tasks have started."""
    while len(started.read_text().splitlines()) < 4:
        time.sleep(0.05)
    victim = executors(driver.pid)[0]
    os.kill(victim, signal.SIGKILL)
    killed.append(victim)


def main():
    splade = pathlib.Path(sys.argv[1]).resolve()
    model = ROOT / "tests/fixtures/sparse-encoder/inference-free/model"
    corpus = ROOT / "tests/data/lohelp-nb/corpus.jsonl"
    with tempfile.TemporaryDirectory(prefix="splade-spark-") as folder:
        folder = pathlib.Path(folder)
        one = folder / "one.jsonl"
        subprocess.run([splade, "-q", "encode", model, "--input", corpus, "--role", "document", "--output", one], check=True)
        # two files, whose rows in the order of their names are the corpus
        table = pyarrow.json.read_json(corpus)
        (folder / "corpus").mkdir()
        pyarrow.parquet.write_table(table.slice(0, 500), folder / "corpus/a.parquet")
        pyarrow.parquet.write_table(table.slice(500), folder / "corpus/b.parquet")
        started = folder / "started"
        started.touch()
        slow = folder / "splade"
        slow.write_text(f"#!/bin/sh\necho task >> '{started}'\nsleep 1\nexec '{splade}' \"$@\"\n")
        slow.chmod(0o755)
        output = folder / "vectors"
        recipe = [sys.executable, ROOT / "docs/scale/spark_encode.py", "--model", model, "--input", folder / "corpus", "--output", output,
                  "--splade", slow, "--partitions", str(TASKS)]
        submit = [f"--master {CLUSTER}", "--conf spark.executor.memory=512m", "--conf spark.ui.enabled=false",
                  "--conf spark.driver.bindAddress=127.0.0.1", "--conf spark.driver.host=127.0.0.1", "pyspark-shell"]
        environment = {**os.environ, "PYSPARK_SUBMIT_ARGS": " ".join(submit), "PYSPARK_PYTHON": sys.executable,
                       "SPARK_LOCAL_IP": "127.0.0.1"}
        log = folder / "log"
        with open(log, "w") as errors:
            driver = subprocess.Popen(recipe, env=environment, cwd=folder, stderr=errors)
            killed = []
            thread = threading.Thread(target=kill_one, args=(driver, started, killed), daemon=True)
            thread.start()
            if driver.wait() != 0:
                sys.exit(f"spark.py: the job failed\n{log.read_text()[-3000:]}")
        found = b"".join(path.read_bytes() for path in sorted(output.glob("part-*")))
        assert killed, "the job ended before an executor was killed"
        assert found == one.read_bytes(), "the vectors differ from those of one run"
        runs = len(started.read_text().splitlines())
        assert runs > TASKS, f"{runs} runs of {TASKS} tasks: nothing was run again"
        print(f"spark: {len(found.splitlines())} vectors in {len(list(output.glob('part-*')))} files equal one run byte for byte; "
              f"{TASKS} tasks took {runs} runs after an executor was killed")


if __name__ == "__main__":
    main()
