"""The deployment files, checked without running a container; run.py runs them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement

import seedbed
from seedbed.cli._app import seedbed_command

ROOT = Path(__file__).resolve().parent.parent.parent
KUBERNETES = ROOT / "deploy" / "kubernetes"
DASHBOARD = ROOT / "deploy" / "monitoring" / "grafana" / "dashboards" / "seedbed.json"
VARIANTS = ["base", "plaintext", "gpu", "checkpoint"]
KUBERNETES_VERSIONS = ["1.29", "1.35"]
SERVER_GRACE = 30  # of `seedbed serve --grace`
RENDERERS = (("kustomize", "build"), ("kubectl", "kustomize"))

Object = dict[str, Any]


# Reading the files.


@cache
def compose_services() -> dict[str, Object]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


@cache
def rendered(variant: str) -> list[Object]:
    renderer = next((command for command in RENDERERS if shutil.which(command[0])), None)
    if renderer is None:
        pytest.skip("neither kustomize nor kubectl is installed")
    command = [*renderer, str(KUBERNETES / variant)]
    return list(yaml.safe_load_all(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [manifest for manifest in objects if manifest["kind"] == kind]


def pods(objects: list[Object]) -> Iterator[Object]:
    for workload in of_kind(objects, "Deployment") + of_kind(objects, "Job"):
        yield workload["spec"]["template"]


def known_variables(command: str) -> set[str]:
    """The variables that a command's help names."""
    parsed_command = seedbed_command.commands[command]
    return set(re.findall(r"SEEDBED_\w+", parsed_command.get_help(click.Context(parsed_command))))


def parsed(arguments: list[str], variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Parses a command line without running it, and returns its options."""
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    command = seedbed_command.commands[arguments[0]]
    return command.make_context(arguments[0], list(arguments[1:])).params


# Kubernetes.


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_objects_follow_kubernetes_schemas(variant: str, version: str):
    for manifest in rendered(variant):
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("path", sorted(KUBERNETES.rglob("*.yaml")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_manifests_are_valid(path: Path):
    """Needs no renderer: complete objects follow the schemas, and patches name an object that exists."""
    manifest = yaml.safe_load(path.read_text())
    if manifest["kind"] == "Kustomization":
        assert all((path.parent / resource).exists() for resource in manifest["resources"])
        assert all((path.parent / patch["path"]).exists() for patch in manifest.get("patches", []) if "path" in patch)
    elif path.parent.name in ("base", "checkpoint"):
        kubernetes_validate.validate(manifest, KUBERNETES_VERSIONS[-1], strict=True)
    else:
        base = yaml.safe_load((KUBERNETES / "base" / path.name).read_text())
        assert (manifest["kind"], manifest["metadata"]) == (base["kind"], base["metadata"])
        assert names(containers_of(manifest)) <= names(containers_of(base))


def containers_of(workload: Object) -> list[Object]:
    return workload["spec"]["template"]["spec"]["containers"]


def names(things: list[Object]) -> set[str]:
    return {thing["name"] for thing in things}


@pytest.mark.parametrize("variant", VARIANTS)
def test_pods_follow_the_restricted_standard(variant: str):
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, and a read-only root."""
    for pod in pods(rendered(variant)):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not any("hostPath" in volume for volume in spec["volumes"])
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
            }  # fmt: skip
            assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
            assert {mount["name"] for mount in container["volumeMounts"]} == names(spec["volumes"])


@pytest.mark.parametrize("variant", ["base", "plaintext", "gpu"])
def test_selectors_match_the_servers_and_no_other_pods(variant: str):
    objects = rendered(variant)
    (server,), (worker,) = pods(objects), pods(rendered("checkpoint"))
    labels, workers_labels = server["metadata"]["labels"], worker["metadata"]["labels"]
    (service,), (policy,) = of_kind(objects, "Service"), of_kind(objects, "NetworkPolicy")
    (budget,), (deployment,) = of_kind(objects, "PodDisruptionBudget"), of_kind(objects, "Deployment")
    for selector in (
        service["spec"]["selector"],
        policy["spec"]["podSelector"]["matchLabels"],
        budget["spec"]["selector"]["matchLabels"],
        deployment["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
        assert not selector.items() <= workers_labels.items()
    clients = policy["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"]
    assert clients.items() <= workers_labels.items()
    ports = names(server["spec"]["containers"][0]["ports"])
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    assert {rule["ports"][0]["port"] for rule in policy["spec"]["ingress"]} <= ports


@pytest.mark.parametrize("variant", ["base", "plaintext", "gpu"])
def test_pods_configure_servers_correctly(variant: str, monkeypatch: pytest.MonkeyPatch):
    (pod,) = pods(rendered(variant))
    (container,) = pod["spec"]["containers"]
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    assert variables.keys() <= known_variables("serve") | known_variables("health")
    options = parsed(container["args"], variables, monkeypatch)
    assert options["listen"] == ("0.0.0.0:50051",)
    assert variables["SEEDBED_METRICS"].endswith(f":{pod['metadata']['annotations']['prometheus.io/port']}")
    assert pod["spec"]["terminationGracePeriodSeconds"] > SERVER_GRACE
    mounts = tuple(mount["mountPath"] for mount in container["volumeMounts"])
    assert all(value.startswith(mounts) for value in variables.values() if value.startswith("/"))
    is_plaintext = "SEEDBED_SERVER_INSECURE" in variables
    assert is_plaintext == (variant == "plaintext")
    assert is_plaintext != ("SEEDBED_SERVER_TLS_CERT" in variables)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert ("grpc" in container[probe], "exec" in container[probe]) == (is_plaintext, not is_plaintext)
        if not is_plaintext:
            assert parsed(container[probe]["exec"]["command"][1:], {}, monkeypatch)["target"] == "127.0.0.1:50051"


def test_workers_write_all_shards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (job,) = of_kind(rendered("checkpoint"), "Job")
    (container,) = containers_of(job)
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    assert variables.keys() <= known_variables("model")
    model = tmp_path / "model.json"
    model.write_bytes((ROOT / "examples" / "gpt2-124m.json").read_bytes())
    shards = []
    for index in range(job["spec"]["completions"]):
        arguments = [text.replace("$(JOB_COMPLETION_INDEX)", str(index)) for text in container["args"]]
        arguments[arguments.index("/etc/seedbed/model/model.json")] = str(model)
        shards.append(parsed(arguments, variables, monkeypatch)["worker"])
    assert shards == [(index, len(shards)) for index in range(len(shards))]


# Compose.


@pytest.mark.parametrize("name", ["server", "loopback", "gpu"])
def test_composed_servers_are_configured_correctly(name: str, monkeypatch: pytest.MonkeyPatch):
    service = compose_services()[name]
    assert service["environment"].keys() <= known_variables("serve")
    options = parsed(service["command"], service["environment"], monkeypatch)
    assert options["listen"] == ("0.0.0.0:50051",)
    assert int(service["stop_grace_period"].removesuffix("s")) > SERVER_GRACE


@pytest.mark.parametrize("name", ["server", "loopback", "gpu", "trainer", "prometheus", "grafana"])
def test_composed_containers_are_hardened(name: str):
    service = compose_services()[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


# Prometheus and Grafana.


def test_prometheus_scrapes_the_servers():
    (job,) = yaml.safe_load((ROOT / "deploy" / "monitoring" / "prometheus.yml").read_text())["scrape_configs"]
    (discovery,) = job["dns_sd_configs"]
    for name in discovery["names"]:
        assert compose_services()[name]["environment"]["SEEDBED_METRICS"] == f"0.0.0.0:{discovery['port']}"


def test_promtool_accepts_the_configuration():
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    command = ["promtool", "check", "config", str(ROOT / "deploy" / "monitoring" / "prometheus.yml")]
    subprocess.run(command, check=True, capture_output=True)


def test_dashboard_shows_all_metrics(start_server: Callable[..., Any]):
    handle = start_server(metrics="127.0.0.1:0")
    with seedbed.connect(handle.target) as client:
        client.normal((4, 4))
    url = re.search(r"metrics on (\S+)", handle.banner)[1]
    exported: dict[str, set[str]] = {}
    for line in urllib.request.urlopen(url).read().decode().splitlines():
        if not line.startswith("#"):
            name, labels = re.match(r"(\w+)(\{.*\})?", line).groups()
            exported.setdefault(name, {"job", "instance"}).update(re.findall(r"(\w+)=", labels or ""))
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [variable["definition"] for variable in dashboard["templating"]["list"] if "definition" in variable]
    shown = {name for text in expressions for name in re.findall(r"seedbed_\w+", text)}
    assert shown
    assert shown <= exported.keys()
    missing = {name for name in exported if not name.endswith("_created")} - shown
    assert missing <= {"seedbed_request_seconds_count", "seedbed_request_seconds_sum"}
    for text in expressions:
        labels = re.findall(r"(\w+)(?:=|!=|=~|!~)\"", text) + re.findall(
            r"\w+", "".join(re.findall(r"by \((.*?)\)", text))
        )
        metrics = re.findall(r"seedbed_\w+", text)
        assert all(set(labels) <= exported[name] for name in metrics), text


# The image.


@pytest.mark.parametrize(("lock", "extra"), [("cpu", "server"), ("gpu", "gpu")])
def test_locked_versions_meet_the_requirements(lock: str, extra: str):
    text = (ROOT / "deploy" / "image" / f"requirements-{lock}.txt").read_text()
    locked: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE):
        locked.setdefault(name, []).append(version)
    for requirement in requirements(extra):
        versions = locked[requirement.name.lower().replace("_", "-")]
        assert all(version in requirement.specifier for version in versions), requirement


def requirements(extra: str) -> Iterator[Requirement]:
    """What the project requires with an extra, and with the extras that this one includes."""
    client, server = (tomllib.loads((ROOT / path).read_text()) for path in ("pyproject.toml", "server/pyproject.toml"))
    pinned = [
        text.format(version="1") for text in server["tool"]["hatch"]["metadata"]["hooks"]["custom"]["dependencies"]
    ]
    extras = {
        "seedbed": {"": client["project"]["dependencies"], **client["project"]["optional-dependencies"]},
        "seedbed-server": {"": pinned, **server["project"]["optional-dependencies"]},
    }
    waiting = [Requirement(f"seedbed[{extra}]")]
    while waiting:
        requirement = waiting.pop()
        if requirement.name not in extras:
            yield requirement
            continue
        for name in ("", *requirement.extras):
            waiting += map(Requirement, extras[requirement.name][name])
