#!/usr/bin/env python3
"""Checks the manifests in deploy/kubernetes. Run by `make check-yaml`, which installs the packages kubernetes-validate and PyYAML.

Each folder with a kustomization.yaml is rendered with the few features of kustomize that the folders use, and every resource is
validated against the schema of Kubernetes, without unknown fields. kustomize itself is not run.
"""

import sys
from pathlib import Path

import kubernetes_validate
import yaml

FOLDER = Path(__file__).resolve().parent.parent / "deploy/kubernetes"
KNOWN = {"apiVersion", "kind", "resources", "configMapGenerator", "generatorOptions", "patches"}


def render(folder: Path) -> dict:
    """Returns the resources of a folder by kind and name."""
    file = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(file) <= KNOWN, f"{folder}: this script does not know {set(file) - KNOWN}"
    found = {}
    for resource in file["resources"]:
        path = folder / resource
        if path.is_dir():
            found |= render(path)
        else:
            found |= {(it["kind"], it["metadata"]["name"]): it for it in yaml.safe_load_all(path.read_text())}
    for entry in file.get("configMapGenerator", []):
        replaces = entry.get("behavior") == "replace"
        assert replaces == (("ConfigMap", entry["name"]) in found), f"{folder}: {entry['name']}"
        data = {name: (folder / name).read_text() for name in entry["files"]}
        found["ConfigMap", entry["name"]] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": entry["name"]}, "data": data}
    for patch in file.get("patches", []):
        for operation in yaml.safe_load((folder / patch["path"]).read_text()):
            assert operation["op"] == "add" and operation["path"].endswith("/-"), operation
            place = found[patch["target"]["kind"], patch["target"]["name"]]
            for word in operation["path"].strip("/-").split("/"):
                place = place[int(word) if isinstance(place, list) else word]
            place.append(operation["value"])
    return found


def main() -> int:
    for file in sorted(FOLDER.glob("*/kustomization.yaml")):
        resources = render(file.parent)
        for (kind, name), resource in resources.items():
            kubernetes_validate.validate(resource, "1.30", strict=True)
            print(f"{file.parent.name}: {kind} {name} is valid")
        pod = resources["Job", "rust-eland"]["spec"]["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        mounts = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert volumes == mounts, f"volumes {volumes}, mounts {mounts}"
        for volume in pod["volumes"]:
            name = volume.get("configMap", {}).get("name")
            assert name is None or ("ConfigMap", name) in resources, f"no ConfigMap {name}"
    return 0


if __name__ == "__main__":
    sys.exit(main())
