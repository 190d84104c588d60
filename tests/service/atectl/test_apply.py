"""`ate apply`: what reaches the catalog."""

import io
import json
import sys
from pathlib import Path

import pytest
from google.protobuf import json_format

from tests.service.atectl.conftest import Ate, Control

TEMPLATE = """\
apiVersion: ate.dev/v1alpha1
kind: ActorTemplate
metadata: {name: counter, namespace: default}
spec:
  containers:
    - {name: counter, image: "oci:./image:latest"}
  snapshotsConfig: {location: "file:snapshots"}
"""
POOL = """\
apiVersion: ate.dev/v1alpha1
kind: WorkerPool
metadata: {name: pool, namespace: default}
spec: {replicas: 2, ateomImage: local}
"""
BAD = "kind: Bad\n"


def write(folder: Path, *documents: str) -> str:
    path = folder / "file.yaml"
    path.write_text("---\n".join(documents))
    return str(path)


async def test_every_document_is_applied(ate: Ate, control: Control, tmp_path: Path) -> None:
    result = await ate("apply", "-f", write(tmp_path, TEMPLATE, "", POOL))
    assert result.out == "actortemplate/counter created\nworkerpool/pool created\n"
    assert len(control.catalog.resources) == 2


async def test_image_folder_is_relative_to_the_document(
    ate: Ate, control: Control, tmp_path: Path
) -> None:
    await ate("apply", "-f", write(tmp_path, TEMPLATE))
    spec = json_format.MessageToDict(control.catalog.requests[0].document)["spec"]
    assert spec["containers"][0]["image"] == f"oci:{tmp_path}/image:latest"
    assert spec["snapshotsConfig"]["location"] == "file:snapshots"


async def test_standard_input(
    ate: Ate, control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(TEMPLATE))
    monkeypatch.chdir(tmp_path)
    assert (await ate("apply", "-f", "-")).code == 0
    spec = json_format.MessageToDict(control.catalog.requests[0].document)["spec"]
    assert spec["containers"][0]["image"] == f"oci:{tmp_path}/image:latest"


async def test_dry_run_and_replace_are_passed_on(
    ate: Ate, control: Control, tmp_path: Path
) -> None:
    result = await ate("apply", "-f", write(tmp_path, POOL), "--dry-run", "--replace")
    assert result.out == "workerpool/pool created (dry run)\n"
    assert [(r.dry_run, r.replace) for r in control.catalog.requests] == [(True, True)]
    assert not control.catalog.resources


async def test_a_bad_document_leaves_those_before_it_unapplied(
    ate: Ate, control: Control, tmp_path: Path
) -> None:
    file = write(tmp_path, POOL, BAD)
    result = await ate("apply", "-f", file)
    assert result.code == 1
    said = "spec.containers[0].image: is missing (TEMPLATE_INVALID)"
    assert result.err == f"ate: cannot apply {file}, document 2: {said}\n"
    assert not control.catalog.resources


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "line 1"),
        ("- a\n", "it is no mapping"),
        ("", "it holds no document"),
        ("kind: {1: x}\n", "key 1 of kind is no text"),
        ("metadata: {created: 2026-01-01}\n", "metadata.created is date"),
        ("spec: {a: .nan}\n", "spec.a is float"),
        ("a: &a\n  b: *a\n", "which JSON does not have"),
        ("kind: \x07\n", "special characters"),
    ],
)
async def test_what_is_no_document_is_refused_in_one_line(
    ate: Ate, control: Control, tmp_path: Path, text: str, said: str
) -> None:
    result = await ate("apply", "-f", write(tmp_path, text))
    assert result.code == 1
    assert said in result.err
    assert result.err.count("\n") == 1
    assert result.err.endswith("(INVALID_ARGUMENT)\n")
    assert not control.catalog.requests


async def test_missing_file(ate: Ate, tmp_path: Path) -> None:
    result = await ate("apply", "-f", str(tmp_path / "no.yaml"))
    assert result.err == (
        f"ate: cannot read {tmp_path}/no.yaml: No such file or directory (INVALID_ARGUMENT)\n"
    )


async def test_templates_and_pools_are_shown_and_deleted(
    ate: Ate, control: Control, tmp_path: Path
) -> None:
    await ate("apply", "-f", write(tmp_path, TEMPLATE, POOL))
    shown = (await ate("get", "templates")).out.splitlines()
    assert shown[0].split()[:2] == ["NAMESPACE", "NAME"]
    assert shown[1].split()[:2] == ["default", "counter"]
    listed = json.loads((await ate("get", "pools", "-o", "json")).out)
    assert listed["resources"][0]["spec"] == {"replicas": 2, "ateomImage": "local"}
    assert (await ate("get", "template", "default/counter", "-o", "name")).out == (
        "template/counter\n"
    )
    assert (await ate("get", "pool", "pool", "-n", "elsewhere")).code == 1
    assert (await ate("delete", "pool", "pool")).out == "pool/pool deleted\n"
    assert (await ate("delete", "template", "default/counter")).out == (
        "template/counter deleted\n"
    )
    assert not control.catalog.resources
