"""A supervised run as Kubernetes manifests: a JobSet of the supervisor and the workers, and what they need.

Checked against Kubernetes' schemas, never run: the placement that would spawn, fence and drain pods (delete a pod,
cordon a node) is not written, so `pool = "kubernetes"` is refused today. What the manifests settle:

- Restarts are ours. JobSet restarts nothing (maxRestarts 0); a worker's pod that ends is replaced alone by its Job, up
  to the largest limit there is; exit code 2, a user's mistake, ends everything.
- A replaced pod starts only when the old one is gone for sure (podReplacementPolicy Failed): that is the fence. So the
  grace period is one second, not zero: zero would let the API forget a pod whose process may still compute.
- No preStop hook: the end of a worker's connection tells the supervisor all it needs, at once.
- Spares are further completions of the same Job, one pod per node.
"""

from __future__ import annotations

import re
from typing import Any

from gigafactory.errors import UserError
from gigafactory.factory.file import Factory
from gigafactory.supervise.local import RUN
from gigafactory.supervise.runtime.checks import devices_per_worker

Manifest = dict[str, Any]

JOBSET_API = "jobset.x-k8s.io/v1alpha2"
NAME_AT_MOST = 40  # a pod's host name is NAME-workers-0-24999, of 63 characters at most
MOST_RETRIES = 2**31 - 1
USER_MISTAKE = 2
LAST_SAVE_S = 900  # the supervisor saves before it ends
WORKER_GRACE_S = 1
_RUNS, _FILES = "/runs", "/etc/gigafactory"


def manifests(factory: Factory, text: str, *, image: str, volume: str) -> list[Manifest]:
    """ServiceAccount, Role, RoleBinding, ConfigMap, headless Service and JobSet of a run.

    text: the factory file. image: with gigafactory and the data that the file names. volume: a claim that all pods
    mount for writing. Raises UserError for a run's name that Kubernetes does not take.
    """
    name = factory.train.name
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) or len(name) > NAME_AT_MOST:
        raise UserError(
            f"train.name: as the name of a JobSet it has at most {NAME_AT_MOST} small letters, digits and hyphens and"
            f" begins with a letter, got {name!r}"
        )
    meta: Manifest = {"name": name, "labels": {"app.kubernetes.io/name": "gigafactory"}}
    supervisor = {
        "name": "supervisor",
        "replicas": 1,
        "template": {"spec": _job(1, _supervisor_pod(name, image, volume))},
    }
    section = factory.supervise
    pod = _worker_pod(name, image, volume, gpus=devices_per_worker(factory))
    workers = {
        "name": "workers",
        "replicas": 1,
        "template": {"spec": _job(section.workers + section.spares, pod)},
    }
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": meta,
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "delete"]}],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name}],
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"factory.toml": text}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {
                "clusterIP": "None",
                "publishNotReadyAddresses": True,  # workers look for each other before anything is ready
                "selector": {"jobset.sigs.k8s.io/jobset-name": name},
            },
        },
        {
            "apiVersion": JOBSET_API,
            "kind": "JobSet",
            "metadata": meta,
            "spec": {
                "network": {"enableDNSHostnames": True, "subdomain": name, "publishNotReadyAddresses": True},
                "successPolicy": {"operator": "All", "targetReplicatedJobs": ["supervisor"]},
                "failurePolicy": {
                    "maxRestarts": 0,
                    "rules": [{"name": "mistake", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
                },
                "replicatedJobs": [supervisor, workers],
            },
        },
    ]


def _job(pods: int, pod: Manifest) -> Manifest:
    return {
        "completionMode": "Indexed",
        "completions": pods,
        "parallelism": pods,
        "backoffLimit": MOST_RETRIES,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [USER_MISTAKE]}},
            ]
        },
        "template": {"metadata": {"labels": {"app.kubernetes.io/name": "gigafactory"}}, "spec": pod},
    }


def _supervisor_pod(name: str, image: str, volume: str) -> Manifest:
    """It takes the run over from its log wherever it is started again."""
    command = ["gigafactory", "train", f"{_FILES}/factory.toml", "--runs", _RUNS, "--set", "supervise.pool=kubernetes"]
    container = {
        "name": "supervisor",
        "image": image,
        "command": command,
        "resources": {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"memory": "16Gi"}},
        "volumeMounts": [{"name": "runs", "mountPath": _RUNS}, {"name": "factory", "mountPath": _FILES}],
    }
    return {
        "restartPolicy": "Never",
        "serviceAccountName": name,
        "terminationGracePeriodSeconds": LAST_SAVE_S,
        "containers": [container],
        "volumes": [_runs(volume), {"name": "factory", "configMap": {"name": name}}],
    }


def _worker_pod(name: str, image: str, volume: str, *, gpus: int) -> Manifest:
    # the index is the worker's name, so that a replaced pod is known as the worker that it replaces
    start = f'exec python -m gigafactory.supervise.worker "${RUN}" "w$JOB_COMPLETION_INDEX"'
    container = {
        "name": "worker",
        "image": image,
        "command": ["sh", "-c", start],
        "env": [{"name": RUN, "value": f"{_RUNS}/{name}"}, {"name": "PYTHONUNBUFFERED", "value": "1"}],
        "resources": {"limits": {"nvidia.com/gpu": gpus}},
        "volumeMounts": [{"name": "runs", "mountPath": _RUNS}, {"name": "memory", "mountPath": "/dev/shm"}],
    }
    apart = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {
            "matchLabels": {
                "jobset.sigs.k8s.io/jobset-name": name,
                "jobset.sigs.k8s.io/replicatedjob-name": "workers",
            }
        },
    }
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": WORKER_GRACE_S,
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "containers": [container],
        # snapshots and NCCL's segments live in /dev/shm, of which containers have 64 MB otherwise
        "volumes": [_runs(volume), {"name": "memory", "emptyDir": {"medium": "Memory"}}],
    }


def _runs(volume: str) -> Manifest:
    return {"name": "runs", "persistentVolumeClaim": {"claimName": volume}}
