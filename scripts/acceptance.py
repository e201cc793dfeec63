#!/usr/bin/env python3
"""Runs rust-eland against an Elasticsearch cluster as a user would, and reports what works. `make acceptance` runs this script.

    scripts/acceptance.py [--program PATH] [--report FILE] [--model FOLDER] [-- OPTION ...]

ES_URL and the other variables that rust-eland reads select the cluster and the credentials. Options after `--` are added to every
command that connects to the cluster, such as `--ca-certs FILE` or `--insecure`.

The ids of all models and endpoints begin with a prefix that is different in each run. The script deletes them at the end, also
after a failure, Ctrl-C or SIGTERM. It prints a table and writes a JSON report. The exit status is 0 if every check passed, 1 if one
failed, and 130 after an interruption. The standard library and a clone of the repository are all that it needs.
"""

import argparse
import base64
import json
import os
import re
import secrets
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests/fixtures"
TREE = FIXTURES / "trees/xgboost-3.2.0-binary.ubj"
SINGLE = ["The river is cold in summer.", "She lost her good book in Paris.", "Music!"]
PAIRS = ["Where is the river?\tThe river is cold in summer.", "Who lost a book?\tShe lost her good book in Paris."]
MASKED = ["The river is [MASK] in summer.", "[MASK] lost her good book."]
# Task, fixture, texts for `verify`, and options and text for `infer`.
TASKS = [
    ("text_embedding", "bert/st-mean", SINGLE, []),
    ("text_expansion", "sparse/splade-v3-distilbert", SINGLE, []),
    ("text_classification", "bert/text-classification", SINGLE, []),
    ("ner", "bert/ner", SINGLE, []),
    ("fill_mask", "bert/masked-lm", MASKED, []),
    ("question_answering", "bert/question-answering", PAIRS, ["--question", "Where is the river?"]),
    ("zero_shot_classification", "bert/zero-shot", PAIRS, ["--labels", "river,music"]),
    ("text_similarity", "bert/cross-encoder", PAIRS, ["--query", "Where is the river?"]),
    ("pass_through", "bert/base", SINGLE, []),
]
SECONDS = 900  # limit of one command


class Failure(Exception):
    """A check that failed, with the reason."""


class Skipped(Exception):
    """A check that the cluster's version does not support."""


def expect(condition: object, message: str) -> None:
    if not condition:
        raise Failure(message)


# ---------------------------------------------------------------------------------------------------------- program


class Program:
    """Runs rust-eland. Credentials reach it through the environment only."""

    def __init__(self, path: Path, options: list, folder: Path):
        self.path, self.options = path, options
        # Journals of this run only. Its own session keeps Ctrl-C away from the program, which end_child stops.
        self.state = folder / "state"
        self.environment = {**os.environ, "RUST_ELAND_STATE_DIR": str(self.state), "NO_COLOR": "1"}
        self.child = None

    def begin(self, *words: object) -> subprocess.Popen:
        command = [str(self.path), *map(str, words)]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.child = subprocess.Popen(command, env=self.environment, text=True, start_new_session=True, **pipes)
        return self.child

    def end_child(self) -> None:
        """Stops a command that is still running, so that it changes nothing after the cleanup."""
        if self.child and self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.communicate()

    def run(self, *words: object, code: int = 0) -> tuple:
        """Runs a command on the cluster. Returns its standard output and standard error; any other exit code than `code` is a failure."""
        child = self.begin(*words, *self.options)
        try:
            out, err = child.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            self.end_child()
            raise Failure(f"`rust-eland {' '.join(map(str, words))}` did not end within {SECONDS} seconds") from None
        if child.returncode != code:
            last = "\n".join((err.strip() or out.strip()).splitlines()[-6:])
            raise Failure(f"`rust-eland {' '.join(map(str, words))}` exited with {child.returncode}, not {code}: {last}")
        return out, err

    def json(self, *words: object):
        return json.loads(self.run(*words, "--output", "json")[0])


# ---------------------------------------------------------------------------------------------------------- cluster


class Cluster:
    """The few requests that the program has no command for."""

    def __init__(self, options: list):
        url = urllib.parse.urlsplit(os.environ.get("ES_URL", "").split(",")[0])
        if url.scheme not in ("http", "https") or not url.hostname:
            sys.exit("error: ES_URL is not set; run make acceptance ES_URL=https://HOST:9200")
        host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
        self.url = f"{url.scheme}://{host}" + (f":{url.port}" if url.port else "") + url.path.rstrip("/")
        user, password = os.environ.get("ES_USERNAME") or url.username, os.environ.get("ES_PASSWORD") or url.password
        key, token = os.environ.get("ES_API_KEY"), os.environ.get("ES_TOKEN")
        self.headers = {"Content-Type": "application/json"}
        if key:
            key = base64.b64encode(key.encode()).decode() if ":" in key else key
            self.headers["Authorization"] = f"ApiKey {key}"
        elif token:
            self.headers["Authorization"] = f"Bearer {token}"
        elif user:
            pair = f"{urllib.parse.unquote(user)}:{urllib.parse.unquote(password or '')}"
            self.headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        context = ssl.create_default_context()
        if "--insecure" in options:
            context = ssl._create_unverified_context()
        elif "--ca-certs" in options:
            context = ssl.create_default_context(cafile=options[options.index("--ca-certs") + 1])
        self.opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))

    def request(self, method: str, path: str, body: object = None) -> dict:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/{path}", data, method=method, headers=self.headers)
        with self.opener.open(request, timeout=60) as response:
            return json.load(response)

    def describe(self) -> dict:
        """Returns version and licence."""
        version = self.request("GET", "")["version"]
        serverless = version.get("build_flavor") == "serverless"
        found = {"version": "serverless" if serverless else version["number"], "build": version.get("build_hash"), "licence": None}
        if not serverless:
            try:
                found["licence"] = self.request("GET", "_license")["license"]["type"]
            except urllib.error.HTTPError as error:
                if error.code != 403:  # manage_ml does not include the privilege to read the licence
                    raise
                found["licence"] = "unknown"
        return found


# ----------------------------------------------------------------------------------------------------------- checks


class Checks:
    """The checks of one run, and their results."""

    def __init__(self, program: Program, cluster: Cluster, folder: Path, model: Path):
        self.program, self.cluster, self.folder, self.model = program, cluster, folder, model
        self.prefix = f"acceptance-{secrets.token_hex(4)}"
        self.results, self.found, self.created = [], {}, []

    def id(self, name: str) -> str:
        return f"{self.prefix}-{name.replace('_', '-')}"

    def needs(self, major: int, minor: int) -> None:
        version = self.found["version"]
        if version != "serverless" and tuple(map(int, version.split(".")[:2])) < (major, minor):
            raise Skipped(f"needs Elasticsearch {major}.{minor}")

    def texts(self, name: str, lines: list) -> Path:
        path = self.folder / f"{name}.txt"
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    def check(self, name: str, function, *arguments) -> bool:
        begin, result, detail = time.monotonic(), "passed", ""
        try:
            detail = function(*arguments) or ""
        except Skipped as reason:
            result, detail = "skipped", str(reason)
        except (Failure, OSError, ValueError, KeyError, IndexError, TypeError) as error:
            result = "failed"
            detail = str(error) if isinstance(error, Failure) else f"{type(error).__name__}: {error}"
        seconds = round(time.monotonic() - begin, 1)
        self.results.append({"name": name, "result": result, "seconds": seconds, "detail": detail})
        print(f"{result:8} {seconds:6.1f} s  {name:32} {detail.splitlines()[0] if detail else ''}", flush=True)
        for line in detail.splitlines()[1:] if result == "failed" else []:
            print(f"{'':20}{line}", flush=True)
        return result != "failed"

    def run_all(self) -> None:
        if not self.check("connect", self.connect):
            return
        self.check("check", self.check_cluster)
        self.check("many models from one file", self.apply)
        for task in TASKS:
            self.check(task[0], self.serve_task, *task)
        self.check("MiniLM, resumed after a kill", self.resume)
        self.check("MiniLM, answers", self.minilm)
        self.check("quantize", self.quantize)
        self.check("prefixes", self.prefixes)
        self.check("inference endpoint", self.endpoint)
        self.check("ingest pipeline", self.pipeline)
        self.check("conflicts and replace", self.conflicts)
        self.check("tree model", self.tree)

    def connect(self) -> str:
        self.found = self.cluster.describe()
        return f"Elasticsearch {self.found['version']}, licence {self.found['licence']}"

    def check_cluster(self) -> str:
        report = self.program.json("check")
        return f"{report['ok']} lines are ok, {report['warnings']} warnings"

    def apply(self) -> str:
        lines = ["models:"]
        for task, fixture, _, _ in TASKS:
            folder = json.dumps(str(FIXTURES / fixture / "model"))
            lines.append(f"  - {{ hub-model-id: {folder}, task-type: {task}, es-model-id: {self.id(task)} }}")
        lines.append(f"  - {{ tree-model: {json.dumps(str(TREE))}, es-model-id: {self.id('tree')} }}")
        models = self.folder / "models.yaml"
        models.write_text("\n".join(lines) + "\n")
        for expected in ("stored", "unchanged"):
            report = self.program.json("apply", models)["models"]
            results = {model["model_id"]: model["result"] for model in report}
            expect(len(results) == len(TASKS) + 1, f"apply reports {len(results)} models")
            expect(set(results.values()) == {expected}, f"not every model is {expected}: {results}")
        return f"{len(TASKS) + 1} models, unchanged by a second run"

    def serve_task(self, task: str, fixture: str, texts: list, options: list) -> str:
        id = self.id(task)
        self.program.run("start", id, "--smoke-test")
        state = self.program.json("status", id)["deployments"][0]["state"]
        expect(state == "started", f"the state is {state}")
        text = texts[0].split("\t")[-1]
        answer = json.loads(self.program.run("infer", "--es-model-id", id, *options, text)[0].splitlines()[0])
        expect("error" not in answer, f"infer returns {answer}")
        verified = self.verify(id, FIXTURES / fixture / "model", texts)
        self.program.run("stop", id)
        return verified

    def verify(self, id: str, source: Path, texts: list) -> str:
        file = self.texts(id, texts)
        report = self.program.json("verify", "--es-model-id", id, "--hub-model-id", source, "--texts", file)
        expect(report["equal"] == report["texts"] == len(texts), f"verify reports {report}")
        return f"largest difference from the model {report['largest_difference']:.1e}"

    def resume(self) -> str:
        """Kills an import when the cluster has stored some parts, and repeats it."""
        words = ["import", "--hub-model-id", self.model, "--task-type", "text_embedding", "--es-model-id", self.id("minilm")]
        child = self.program.begin(*words, "--upload-concurrency", "1", *self.program.options)
        while child.poll() is None and self.stored_parts() < 8:
            time.sleep(0.001)
        child.kill()
        _, err = child.communicate()
        expect(child.returncode == -signal.SIGKILL, f"the import ended before it was killed: {err[-500:]}")
        before = self.stored_parts()
        _, err = self.program.run(*words, "--start")
        match = re.search(r"resuming the upload of .*: (\d+) of (\d+) parts are stored", err)
        expect(match, f"the second import did not resume: {err[-500:]}")
        return f"killed after {before} parts, resumed with {match[1]} of {match[2]}"

    def stored_parts(self) -> int:
        journals = self.program.state.rglob("*") if self.program.state.exists() else []
        return sum(path.read_bytes().count(b" stored ") for path in journals if path.is_file())

    def minilm(self) -> str:
        """Compares embeddings with those that sentence-transformers computed."""
        reference = json.loads((FIXTURES / "all-minilm-l6-v2.json").read_text())
        id, texts = self.id("minilm"), [case["text"] for case in reference]
        expect(all("\n" not in text for text in texts), "a text has several lines")
        file = self.texts("reference", texts)
        lines = self.program.run("infer", "--es-model-id", id, "--input", file, "--timeout", 120)[0].splitlines()
        worst = 0.0
        for line, case in zip(lines, reference, strict=True):
            vector = json.loads(line)["predicted_value"]
            worst = max(worst, max(abs(a - b) for a, b in zip(vector, case["embedding"], strict=True)))
        expect(worst < 1e-4, f"an embedding differs from the reference by {worst:.1e}")
        verified = self.verify(id, self.model, SINGLE)
        self.program.run("stop", id)
        return f"{worst:.1e} from sentence-transformers; {verified}"

    def quantize(self) -> str:
        source, sizes = FIXTURES / "bert/text-classification/model", []
        for scheme in ("all", "embeddings", "eland"):
            id = self.id(f"quantized-{scheme}")
            words = ["--task-type", "text_classification", "--es-model-id", id, f"--quantize={scheme}", "--start", "--smoke-test"]
            report = self.program.json("import", "--hub-model-id", source, *words)
            expect(report["deployment"]["state"] == "started", f"the import reports {report['deployment']}")
            self.program.run("stop", id)
            sizes.append(f"{scheme} {report['size']:,} bytes")
        return ", ".join(sizes)

    def prefixes(self) -> str:
        self.needs(8, 12)
        id, source = self.id("prefixes"), FIXTURES / "bert/st-mean/model"
        words = ["--task-type", "text_embedding", "--es-model-id", id, "--ingest-prefix", "passage: ", "--search-prefix", "query: "]
        self.program.run("import", "--hub-model-id", source, *words)
        model = self.cluster.request("GET", f"_ml/trained_models/{id}")["trained_model_configs"][0]
        stored = model.get("prefix_strings")
        expect(stored == {"ingest": "passage: ", "search": "query: "}, f"the cluster stores the prefixes {stored}")
        return "stored in the cluster"

    def endpoint(self) -> str:
        self.needs(8, 13)
        id, endpoint = self.id("endpoint-model"), self.id("endpoint")
        self.created.append(f"_inference/{endpoint}")
        words = ["--task-type", "text_embedding", "--es-model-id", id, "--create-endpoint", endpoint]
        self.program.run("import", "--hub-model-id", FIXTURES / "bert/st-mean/model", *words)
        answer = json.loads(self.program.run("infer", "--es-model-id", endpoint, SINGLE[0])[0])
        expect(len(answer["predicted_value"]) == 32, f"the endpoint returns {answer}")
        self.program.run("delete", id, code=6)  # a model that an endpoint uses is kept
        self.delete_created()
        return "answers, and protects its model from deletion"

    def pipeline(self) -> str:
        """Creates an ingest pipeline and processes a document with it."""
        id, pipeline = self.id("text_embedding"), self.id("pipeline")
        self.created.append(f"_ingest/pipeline/{pipeline}")
        self.program.run("start", id)
        self.program.run("pipeline", "create", pipeline, "--es-model-id", id, "--input-field", "body", "--output-field", "ml.result")
        documents = {"docs": [{"_source": {"body": SINGLE[0]}}]}
        document = self.cluster.request("POST", f"_ingest/pipeline/{pipeline}/_simulate", documents)["docs"][0]["doc"]["_source"]
        expect(len(document["ml"]["result"]["predicted_value"]) == 32, f"the pipeline returns {document}")
        self.delete_created()
        self.program.run("stop", id)
        return "adds the embedding to a document"

    def delete_created(self) -> None:
        """Deletes the endpoints and pipelines of this run."""
        for path in self.created:
            try:
                self.cluster.request("DELETE", path)
            except urllib.error.HTTPError as error:
                if error.code != 404:  # it exists
                    raise Failure(f"{path} could not be deleted: {error}") from None
        self.created.clear()

    def conflicts(self) -> str:
        id, same, other = self.id("ner"), FIXTURES / "bert/ner/model", FIXTURES / "distilbert/ner/model"
        imported = ["import", "--task-type", "ner", "--es-model-id", id, "--hub-model-id"]
        before = self.size(id)
        self.program.run(*imported, same, code=7)
        for conflict in ("skip", "update"):
            out, _ = self.program.run(*imported, same, "--on-conflict", conflict)
            expect(out == f"{id} unchanged\n", f"--on-conflict {conflict} prints {out!r}")
        self.program.run(*imported, other, "--on-conflict", "skip", code=7)
        expect(self.size(id) == before, "a refused import changed the model")
        out, _ = self.program.run(*imported, other, "--on-conflict", "replace")
        expect(out == f"{id} stored\n", f"--on-conflict replace prints {out!r}")
        expect(self.size(id) != before, "the model was not replaced")
        return "fail, skip, update, replace"

    def size(self, id: str) -> int:
        return self.program.json("list", id)["models"][0]["size_bytes"]

    def tree(self) -> str:
        id, rows = self.id("tree"), self.folder / "rows.csv"
        rows.write_text("price,count,delta,change,flag\n19.99,3,0.001,0,1\n5,,0.2,1,0\n")
        answer = json.loads(self.program.run("infer", "--es-model-id", id, "--data", rows)[0].splitlines()[0])
        expect("error" not in answer, f"infer returns {answer}")
        self.program.run("verify", "--tree-model", TREE, "--es-model-id", id, "--data", rows)
        self.program.run("import", "--tree-model", TREE, "--es-model-id", id, "--on-conflict", "replace")
        return "infer, verify, replace"

    def delete(self, force: bool) -> str:
        """Deletes every model and endpoint of this run, and confirms it."""
        self.delete_created()
        failures = []
        models = self.program.json("list", f"{self.prefix}*")["models"]
        for model in models:
            try:
                if force and model["deployments"]:
                    self.program.run("stop", model["model_id"], "--force")
                self.program.run("delete", model["model_id"], *(["--force"] if force else []))
            except Failure as failure:
                failures.append(str(failure))
        left = [model["model_id"] for model in self.program.json("list", f"{self.prefix}*")["models"]]
        expect(not left, f"left in the cluster: {', '.join(left)}\n" + "\n".join(failures))
        return f"{len(models)} models"


# ------------------------------------------------------------------------------------------------------------ main


def report(checks: Checks, program: str, interrupted: bool, seconds: float) -> dict:
    count = {kind: sum(check["result"] == kind for check in checks.results) for kind in ("passed", "failed", "skipped")}
    when = datetime.now(timezone.utc).isoformat(timespec="seconds")
    begin = {"time": when, "url": checks.cluster.url, **checks.found, "program": program, "prefix": checks.prefix}
    return {**begin, "interrupted": interrupted, "seconds": round(seconds, 1), **count, "checks": checks.results}


def main() -> int:
    parser = argparse.ArgumentParser(description="Run rust-eland against the cluster ES_URL and report what works.")
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/rust-eland", help="rust-eland; default: target/release/rust-eland")
    parser.add_argument("--report", type=Path, default=ROOT / "target/acceptance.json", help="JSON report; default: target/acceptance.json")
    parser.add_argument("--model", type=Path, help="folder of all-MiniLM-L6-v2; default: the folder that `make minilm` fills")
    parser.add_argument("options", nargs="*", metavar="-- OPTION", help="options for every command that connects to the cluster")
    arguments = parser.parse_args()
    cluster = Cluster(arguments.options)
    model = arguments.model or Path(subprocess.check_output([sys.executable, str(ROOT / "scripts/fetch.py"), "minilm"], text=True).strip())
    version = subprocess.check_output([str(arguments.program), "--version"], text=True).split("\n")
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    begin, interrupted = time.monotonic(), False
    with tempfile.TemporaryDirectory(prefix="rust-eland-acceptance-") as folder:
        checks = Checks(Program(arguments.program, arguments.options, Path(folder)), cluster, Path(folder), model)
        print(f"{version[0]}, {cluster.url}, prefix {checks.prefix}", flush=True)
        try:
            checks.run_all()
        except KeyboardInterrupt:
            interrupted = True
            print("interrupted; deleting the models of this run", flush=True)
        # The cleanup is not interrupted.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        checks.program.end_child()
        clean = not interrupted and all(check["result"] != "failed" for check in checks.results)
        if checks.found:
            checks.check("delete", checks.delete, not clean)
    result = report(checks, " ".join(version[:2]), interrupted, time.monotonic() - begin)
    arguments.report.parent.mkdir(parents=True, exist_ok=True)
    arguments.report.write_text(json.dumps(result, indent=1) + "\n")
    server = f"Elasticsearch {result['version']}, licence {result['licence']}" if checks.found else "no cluster"
    print(f"{server}: {result['passed']} passed, {result['failed']} failed, {result['skipped']} skipped in {result['seconds']} s")
    print(f"report: {arguments.report}")
    return 130 if interrupted else 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
