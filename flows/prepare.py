"""Prepares a Prefect server for this project: python -m flows.prepare

Makes the work pools that prefect.yaml names, its deployments, and an automation that closes runs that died. What is
there already is left, deployments are brought up to date.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectAlreadyExists
from ruamel.yaml import YAML

from flows import UserError
from flows.server import check_api

# A run whose worker was killed would stay Running for ever. Each tells every 30 s that it is alive (set_environment,
# prefect.yaml).
AUTOMATION = "a run that tells nothing has crashed"
SILENCE = timedelta(seconds=90)
BEAT, ENDS = "prefect.flow-run.heartbeat", ("Completed", "Failed", "Cancelled", "Crashed", "Suspended")


def close_silent_runs(client: SyncPrefectClient) -> None:
    """Make the automation that marks as crashed a run that has told nothing for 90 s, unless it is there."""
    if client.read_automations_by_name(AUTOMATION):
        return
    silent = EventTrigger(
        after={BEAT},
        expect={BEAT, *(f"prefect.flow-run.{end}" for end in ENDS)},
        match={"prefect.resource.id": ["prefect.flow-run.*"]},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=SILENCE,
    )
    crashed = ChangeFlowRunState(state=StateType.CRASHED, message=f"it told nothing for {SILENCE.seconds} s")
    client.create_automation(AutomationCore(name=AUTOMATION, trigger=silent, actions=[crashed]))


def make_pools(client: SyncPrefectClient, names: set[str]) -> None:
    """Make work pools of processes, unless they are there."""
    for name in names:
        try:
            client.create_work_pool(WorkPoolCreate(name=name, type="process"))
        except ObjectAlreadyExists:
            continue


@contextmanager
def schedules_kept(client: SyncPrefectClient) -> Iterator[None]:
    """Leave each schedule switched on or off as it was: to deploy is to set it back to what prefect.yaml says."""
    before = {(d.id, schedule.slug): schedule.active for d in client.read_deployments() for schedule in d.schedules}
    yield
    for deployment in client.read_deployments():
        for schedule in deployment.schedules:
            active = before.get((deployment.id, schedule.slug), schedule.active)
            if active != schedule.active:
                client.update_deployment_schedule(deployment.id, schedule.id, active=active)


def main() -> int:
    """Do all of it; a user's mistake becomes one line and exit status 2."""
    try:
        deployments = YAML(typ="safe").load(Path("prefect.yaml").read_text())["deployments"]
        check_api()
        with get_client(sync_client=True) as client:
            make_pools(client, {deployment["work_pool"]["name"] for deployment in deployments})
            close_silent_runs(client)
            with schedules_kept(client):
                command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
                return subprocess.run(command, check=False).returncode
    except FileNotFoundError:
        print("prepare: prefect.yaml: no such file; run this in the project's root", file=sys.stderr)
    except UserError as error:
        print(f"prepare: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
