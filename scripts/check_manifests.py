#!/usr/bin/env python3
"""Checks the manifests in deploy/kubernetes, and the overlay in docs/kubernetes.md. Run by `make check-yaml`, which installs the packages kubernetes-validate and PyYAML.

Each kustomization.yaml is rendered with the few features of kustomize that the folders use, and every resource is
validated against the schema of Kubernetes, without unknown fields. kustomize itself is not run.
"""

import re
import sys
import tempfile
from pathlib import Path

import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "deploy/kubernetes"
# namespace and images are accepted and not rendered.
KNOWN = {"apiVersion", "kind", "resources", "configMapGenerator", "generatorOptions", "patches", "namespace", "images"}


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
        text = patch.get("patch") or (folder / patch["path"]).read_text()
        for operation in yaml.safe_load(text):
            *words, last = operation["path"].strip("/").split("/")
            place = found[patch["target"]["kind"], patch["target"]["name"]]
            for word in words:
                place = place[int(word) if isinstance(place, list) else word]
            if operation["op"] == "add" and last == "-":
                place.append(operation["value"])
            else:
                key = int(last) if isinstance(place, list) else last
                assert operation["op"] == "replace" and type(place[key]) is type(operation["value"]), operation
                place[key] = operation["value"]
    return found


def check(folder: Path, name: str) -> None:
    resources = render(folder)
    for resource in resources.values():
        kubernetes_validate.validate(resource, "1.30", strict=True)
    pod = resources["Job", "rust-eland"]["spec"]["template"]["spec"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    mounts = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
    assert volumes == mounts, f"volumes {volumes}, mounts {mounts}"
    for volume in pod["volumes"]:
        source = volume.get("configMap", {}).get("name")
        assert source is None or ("ConfigMap", source) in resources, f"no ConfigMap {source}"
    print(f"{name}: {', '.join(' '.join(key) for key in resources)} are valid")


def main() -> int:
    for file in sorted(FOLDER.glob("*/kustomization.yaml")):
        check(file.parent, str(file.relative_to(ROOT)))
    page = (ROOT / "docs/kubernetes.md").read_text()
    (overlay,) = re.findall(r"^```yaml\n(# kustomization\.yaml\n.*?)^```", page, re.MULTILINE | re.DOTALL)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "overlay"
        folder.mkdir()
        (Path(name) / "rust-eland").symlink_to(ROOT)
        (folder / "kustomization.yaml").write_text(overlay)
        (folder / "models.yaml").write_text((FOLDER / "base/models.yaml").read_text())
        check(folder, "overlay in docs/kubernetes.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
