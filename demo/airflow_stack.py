"""A real Airflow 3 with a home of its own: SQLite, LocalExecutor, free loopback ports, and its REST API."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from demo.processes import Processes, free_ports

COMPONENTS = ("api-server", "scheduler", "dag-processor")
TRIGGERER = "triggerer"
"""nothing of ours waits in it; without it Airflow's page shows it in red"""
FINAL = ("success", "failed")
_SECONDS = 60.0
"""for an answer, which is asked for again"""
_CHANGE_SECONDS = 180.0
"""for a change, which is not: longer than a writer waits for SQLite"""


class AirflowStack:
    """
    The components of one Airflow. DAG files go to ``home/dags``.

    Everybody who reaches the port is an administrator, so it listens on the loopback address only.
    """

    def __init__(
        self, home: Path, processes: Processes, parallelism: int = 4, components: Sequence[str] = COMPONENTS
    ) -> None:
        self._components = components
        self._processes = processes
        api, worker_logs, trigger_logs = free_ports(3)
        self.home = home
        self.dags = home / "dags"
        self.url = f"http://127.0.0.1:{api}"
        self._token = ""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "_AIRFLOW"))}
        self.environment = {
            **kept,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(api),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": str(parallelism),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            # Writers wait for each other on a busy machine, instead of failing after SQLite's five seconds.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db?timeout=120",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_logs),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(worker_logs),
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "PATH": f"{Path(sys.executable).parent}:{kept.get('PATH', '')}",
        }

    def start(self) -> None:
        """Makes the metadata database and starts the components, without waiting for them."""
        self.dags.mkdir(parents=True, exist_ok=True)
        self._processes.run("db-migrate", ["airflow", "db", "migrate"], self.environment)
        for component in self._components:
            self._processes.start(component, ["airflow", component], self.environment)

    def wait(self, seconds: float = 120.0) -> None:
        """Waits until the API, the scheduler and the DAG processor say that they are healthy."""

        def healthy() -> bool:
            try:
                health = self.request("GET", "/api/v2/monitor/health", token=False)
            except OSError:
                return False
            parts = ["metadatabase", *(name.replace("-", "_") for name in self._components if name != "api-server")]
            return all(health[part]["status"] == "healthy" for part in parts)

        self.until(healthy, "Airflow to become healthy", seconds)
        self._token = str(self.request("GET", "/auth/token", token=False)["access_token"])

    def until(self, holds: Callable[[], Any], what: str, seconds: float) -> Any:
        """Asks until the answer is true, and returns it. Raises TimeoutError after some time."""
        deadline = time.monotonic() + seconds
        while not (answer := holds()):
            self._processes.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"Waited {seconds:.0f} s for {what}; the logs are in {self.home}.")
            time.sleep(0.7)
        return answer

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None, token: bool = True) -> Any:
        """
        One call of the REST API; raises RuntimeError with Airflow's words when it is refused.

        A question that gets no answer in time, on a machine that is busy, is asked again.
        """
        for _ in range(3 if method == "GET" else 0):
            try:
                return self._call(method, path, body, token)
            except TimeoutError:
                self._processes.check()
        return self._call(method, path, body, token)

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None, token: bool) -> Any:
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        seconds = _SECONDS if method == "GET" else _CHANGE_SECONDS
        try:
            with urllib.request.urlopen(
                urllib.request.Request(self.url + path, data, headers, method=method), timeout=seconds
            ) as reply:
                return json.loads(reply.read() or b"null")
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            if error.code >= 500:
                text += "\n" + self._processes.log("api-server").read_text(errors="replace")[-4000:]
            raise RuntimeError(f"{method} {path}: {error.code} {text}") from None

    def wait_for_dags(self, *dag_ids: str, seconds: float = 90.0) -> None:
        """Waits until the DAG processor has them. Raises RuntimeError with the import error when a file has one."""

        def known() -> bool:
            errors = self.request("GET", "/api/v2/importErrors")["import_errors"]
            if errors:
                raise RuntimeError(str(errors[0]["stack_trace"]))
            listed = self.request("GET", "/api/v2/dags?limit=1000")["dags"]
            return set(dag_ids) <= {dag["dag_id"] for dag in listed}

        self.until(known, f"the DAGs {', '.join(dag_ids)}", seconds)

    def create_connection(self, conn_id: str, conn_type: str, **fields: Any) -> None:
        """Keeps a connection in Airflow's database; ``extra`` is a mapping."""
        extra = fields.pop("extra", None)
        body = {"connection_id": conn_id, "conn_type": conn_type, **fields}
        if extra is not None:
            body["extra"] = json.dumps(extra)
        self.request("POST", "/api/v2/connections", body)

    def test_connection(self, conn_id: str, conn_type: str, **fields: Any) -> tuple[bool, str]:
        """What the Test button of the connection form says."""
        body = {"connection_id": conn_id, "conn_type": conn_type, **fields}
        answer = self.request("POST", "/api/v2/connections/test", body)
        return bool(answer["status"]), str(answer["message"])

    def unpause(self, dag_id: str) -> None:
        """Lets the scheduler run a DAG; also what was triggered while it was paused."""
        self.request("PATCH", f"/api/v2/dags/{dag_id}", {"is_paused": False})

    def backfill(self, dag_id: str, first: str, last: str, max_active_runs: int = 4) -> int:
        """
        Creates a run for each logical date from first to last, both included. Returns the backfill's id.

        With SQLite, Airflow refuses a backfill that meets another writer, and undoes it: then it is asked again.
        """
        body = {
            "dag_id": dag_id,
            "from_date": first,
            "to_date": last,
            "max_active_runs": max_active_runs,
            "reprocess_behavior": "none",
            "run_backwards": False,
            "dag_run_conf": {},
        }

        def created() -> dict[str, Any] | None:
            try:
                answer: dict[str, Any] = self.request("POST", "/api/v2/backfills", body)
            except RuntimeError as error:
                if "Database is locked" in str(error):
                    return None
                raise
            return answer

        return int(self.until(created, f"the backfill of {dag_id}", 60)["id"])

    def trigger(self, dag_id: str, **conf: Any) -> str:
        """Starts a manual run without a data interval. Returns its run id."""
        answer = self.request("POST", f"/api/v2/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf})
        return str(answer["dag_run_id"])

    def runs(self, dag_id: str, run_type: str = "") -> list[dict[str, Any]]:
        """All runs of a DAG, of one type when it is named, by data interval."""
        listed = self.request("GET", f"/api/v2/dags/{dag_id}/dagRuns?limit=1000")["dag_runs"]
        wanted = [run for run in listed if not run_type or run["run_type"] == run_type]
        return sorted(wanted, key=lambda run: str(run["data_interval_start"]))

    def finish(self, dag_id: str, run_id: str, seconds: float = 120.0) -> dict[str, Any]:
        """Waits for the end of a run and returns it, whatever its state."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id)}"

        def ended() -> dict[str, Any] | None:
            run: dict[str, Any] = self.request("GET", path)
            return run if run["state"] in FINAL else None

        found: dict[str, Any] = self.until(ended, f"the run {run_id} of {dag_id}", seconds)
        return found

    def states(self, dag_id: str, run_id: str) -> dict[str, str]:
        """The state of each task of a run."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id)}/taskInstances"
        return {task["task_id"]: task["state"] for task in self.request("GET", path)["task_instances"]}

    def result(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        """What a task returned."""
        path = (
            f"/api/v2/dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id)}/taskInstances/{task_id}"
            "/xcomEntries/return_value?deserialize=true"
        )
        value = self.request("GET", path)["value"]
        found: dict[str, Any] = json.loads(value) if isinstance(value, str) else value
        return found

    def log(self, dag_id: str, run_id: str, task_id: str) -> str:
        """The log of a task's last try, for messages."""
        found = sorted((self.home / "logs").glob(f"dag_id={dag_id}/run_id={run_id}/task_id={task_id}/*.log"))
        return found[-1].read_text(errors="replace") if found else ""
