"""The Kubernetes manifests, checked by the schemas of Kubernetes 1.37; nothing here runs them.

kubernetes-validate has no schema of JobSet. The one below is our own, written from the documentation of its API
(jobset.x-k8s.io/v1alpha2); what a JobSet holds of Kubernetes' own kinds is checked as those kinds.
"""

from __future__ import annotations

import copy
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from fake_run import FACTORY

from gigafactory.errors import UserError
from gigafactory.factory.load import parse_factory
from gigafactory.supervise.jobset import manifests

KUBERNETES = "1.37"

NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}
COUNT = {"type": "integer", "minimum": 0}
NAMES = {"type": "array", "items": NAME}
JOB_FAILURES = ["BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes", "MaxFailedIndexesExceeded"]
JOBSET = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "jobset.x-k8s.io/v1alpha2"},
        "kind": {"const": "JobSet"},
        "metadata": {"type": "object", "required": ["name"], "properties": {"name": NAME}},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "replicatedJobs": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["name", "template"],
                        "properties": {
                            "name": NAME,
                            "groupName": NAME,
                            "replicas": COUNT,
                            "template": {
                                "type": "object",
                                "additionalProperties": False,
                                "required": ["spec"],
                                "properties": {"metadata": {"type": "object"}, "spec": {"type": "object"}},
                            },
                            "dependsOn": {
                                "type": "array",
                                "maxItems": 10,
                                "items": {
                                    "type": "object",
                                    "additionalProperties": False,
                                    "required": ["name", "status"],
                                    "properties": {"name": NAME, "status": {"enum": ["Ready", "Complete"]}},
                                },
                            },
                        },
                    },
                },
                "network": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "enableDNSHostnames": {"type": "boolean"},
                        "subdomain": NAME,
                        "publishNotReadyAddresses": {"type": "boolean"},
                    },
                },
                "successPolicy": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["operator"],
                    "properties": {"operator": {"enum": ["All", "Any"]}, "targetReplicatedJobs": NAMES},
                },
                "failurePolicy": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "maxRestarts": COUNT,
                        "restartStrategy": {"enum": ["Recreate", "BlockingRecreate"]},
                        "rules": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "additionalProperties": False,
                                "required": ["action"],
                                "properties": {
                                    "name": {"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
                                    "action": {
                                        "enum": ["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]
                                    },
                                    "onJobFailureReasons": {
                                        "type": "array",
                                        "items": {"enum": [*JOB_FAILURES, "PodFailurePolicy"]},
                                    },
                                    "targetReplicatedJobs": NAMES,
                                },
                            },
                        },
                    },
                },
                "suspend": {"type": "boolean"},
                "ttlSecondsAfterFinished": COUNT,
            },
        },
    },
}


def supervised(*changes: str) -> list[dict[str, Any]]:
    factory = parse_factory(
        FACTORY, "factory.toml", ['train.name="tiny"', "supervise.workers=4", "supervise.spares=2", *changes]
    )
    return manifests(factory, FACTORY, image="registry.example/gigafactory:1", volume="runs")


def check(manifest: dict[str, Any]) -> None:
    """Raises a validation error. Of a JobSet, each part that is one of Kubernetes' own kinds is checked as such."""
    if manifest["kind"] != "JobSet":
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        return
    jsonschema.validate(manifest, JOBSET)
    for job in manifest["spec"]["replicatedJobs"]:
        metadata = {"name": f"{manifest['metadata']['name']}-{job['name']}-0"}
        spec = job["template"]["spec"]
        check({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec})
        check({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec["template"]["spec"]})


def test_every_manifest_is_valid() -> None:
    made = supervised()
    kinds = [manifest["kind"] for manifest in made]
    assert kinds == ["ServiceAccount", "Role", "RoleBinding", "ConfigMap", "Service", "JobSet"]
    for manifest in made:
        check(manifest)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "failurePolicy", "maxRestarts"), "none"),
        (("spec", "failurePolicy", "rules", 0, "action"), "RestartEverything"),
        (("spec", "retries"), 3),
        (("spec", "replicatedJobs", 1, "template", "spec", "completions"), "six"),
        (("spec", "replicatedJobs", 1, "template", "spec", "template", "spec", "graceSeconds"), 1),
        (("spec", "replicatedJobs", 0, "template", "spec", "template", "spec", "tolerations"), {}),
    ],
)
def test_the_check_finds_what_is_wrong(path: tuple[Any, ...], value: object) -> None:
    broken = copy.deepcopy(supervised()[-1])
    place: Any = broken
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check(broken)


def test_restarts_spares_and_gpus_are_as_the_supervisor_needs_them() -> None:
    *_, service, jobset = supervised("layout.data=8")
    spec = jobset["spec"]
    assert spec["failurePolicy"]["maxRestarts"] == 0
    assert service["spec"]["clusterIP"] == "None"
    assert spec["network"]["subdomain"] == service["metadata"]["name"]
    workers = spec["replicatedJobs"][1]["template"]["spec"]
    assert workers["completions"] == workers["parallelism"] == 6
    assert workers["podReplacementPolicy"] == "Failed"
    pod = workers["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # podFailurePolicy asks for it
    assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": 2}
    assert pod["terminationGracePeriodSeconds"] > 0


def test_a_name_that_kubernetes_does_not_take_is_one_clear_line() -> None:
    with pytest.raises(UserError, match=r"^train\.name: .*got 'My_Run'$"):
        supervised("train.name=My_Run")
